"""Turns that were measured, as rows: medians, ratios within a turn, and what they were measured on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Column, Table

from experiments.config.recipe import Settings
from experiments.runs.environment import choose_device, describe

BASELINE = "cross-entropy"
Cell = tuple[str, str, Settings, str]  # dataset, profile, settings, architecture


@dataclass
class Measured:
    """The counted turns of one kind of step. seconds: of a step, one a turn."""

    dataset: str
    profile: str
    architecture: str
    method: str
    batch_size: int
    precision: str
    compiled: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def cell(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "profile": self.profile,
            "architecture": self.architecture,
            "method": self.method,
            "batch_size": self.batch_size,
            "turns": len(self.seconds),
        }


def ratios(row: list[float], baseline: list[float]) -> list[float]:
    """Median, least and most of the ratios within each turn."""
    within = np.array(row) / np.array(baseline)
    return [float(of(within)) for of in (np.median, np.min, np.max)]


def about(row: Measured) -> dict[str, Any]:
    """What a row was measured on, the last of its columns."""
    message = describe(choose_device(), row.precision, row.compiled)
    columns = ("machine", "device", "precision", "compiled", "threads", "git_commit", "git_dirty")
    return {"torch": message["packages"]["torch"]} | {name: message[name] for name in columns}


def title(row: Measured) -> str:
    machine = about(row)["machine"]
    return f"{row.dataset} ({row.profile}), {row.architecture}, batch {row.batch_size}, {row.precision}, {machine}"


def numbers_table(row: Measured, headings: Iterable[str], first: str = "method") -> Table:
    """A table, yet empty, of numbers behind a first column that is never cut, however narrow the terminal."""
    numbers = (Column(heading, justify="right", overflow="fold") for heading in headings)
    return Table(Column(first, no_wrap=True), *numbers, title=title(row), title_justify="left")
