"""Measurements as tables and as CSV files: in RESULTS_DIR/bench, and in results/measured for committing.

Every part of the benchmark has a function ``measure(cell, options)`` that returns CSV rows by file name.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from cskd.utils import cli
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import atomic_write, write_errors
from experiments.config.settings import Settings
from experiments.runs.environment import choose_device, describe

BASELINE = "cross-entropy"
COMPARED = (BASELINE, "cs-kd")  # the methods of all parts except steps and memory
MEASURED = Path("results/measured")  # committed; docs/speed.md is made from it
# Rows with equal values in these columns measure the same step on the same machine.
KEY = (
    *("dataset", "profile", "architecture", "method", "batch_size"),
    *("machine", "device", "precision", "compiled", "threads"),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A measured setting: dataset, architecture, settings and profile; the method varies."""

    dataset: str
    profile: str
    settings: Settings
    architecture: str


@dataclass(frozen=True)
class Options:
    """The options of the command, and its output.

    methods: measured in the parts steps and memory, besides cross-entropy.
    turns, steps: the number of counted turns, and of counted steps in each.
    overrides: ``--set`` of the command.
    status: shows the current work.
    """

    methods: list[str]
    turns: int
    steps: int
    overrides: tuple[str, ...]
    console: Console
    status: Callable[[str], None]


@dataclass
class Measurement:
    """The counted turns of one method. seconds: seconds per step, one value per turn."""

    cell: Cell
    method: str
    precision: str
    compiled: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def row(self, values: Row) -> Row:
        """Return a CSV row: what was trained, the measured values, and the machine."""
        trained = {
            **{name: getattr(self.cell, name) for name in ("dataset", "profile", "architecture")},
            **{"method": self.method, "batch_size": self.cell.settings.batch_size, "turns": len(self.seconds)},
        }
        facts = describe(choose_device(), self.precision, self.compiled)
        columns = ("machine", "device", "precision", "compiled", "threads", "git_commit", "git_dirty")
        machine = {"torch": facts["packages"]["torch"]} | {name: facts[name] for name in columns}
        machine["git_dirty"] = "unknown" if facts["git_dirty"] is None else facts["git_dirty"]
        return trained | values | machine


def ratios(seconds: list[float], baseline: list[float]) -> list[float]:
    """Return median, minimum and maximum of the ratios within each turn."""
    values = np.array(seconds) / np.array(baseline)
    return [float(statistic(values)) for statistic in (np.median, np.min, np.max)]


def ratio_columns(seconds: list[float], baseline: list[float]) -> Row:
    values = zip(("ratio", "ratio_min", "ratio_max"), ratios(seconds, baseline), strict=True)
    return {name: f"{value:.4f}" for name, value in values}


@dataclass(frozen=True)
class Shown:
    """A column of a printed table.

    column: its name in the CSV file. decimals: of numbers below 100; larger numbers have no decimals. scale: the factor
    from the CSV file to the printed number.
    """

    heading: str
    column: str
    decimals: int = 2
    scale: float = 1.0


def table(rows: list[Row], columns: tuple[Shown, ...]) -> Table:
    """Return a table of numbers by method (and phase). Names are never cut, even in a narrow terminal."""
    names = [name for name in ("method", "phase") if name in rows[0]]
    row = rows[0]
    trained = f"{row['dataset']} ({row['profile']}), {row['architecture']}, batch {row['batch_size']}"
    numbers = (Column(shown.heading, justify="right", overflow="fold") for shown in columns)
    title = f"{trained}, {row['precision']}, {row['machine']}"
    result = Table(Column(", ".join(names), no_wrap=True), *numbers, title=title, title_justify="left")
    for row in rows:
        values = [shown.scale * float(row[shown.column]) for shown in columns]
        decimals = [shown.decimals if value < 100 else 0 for shown, value in zip(columns, values, strict=True)]
        numbers = (f"{value:.{places}f}" for value, places in zip(values, decimals, strict=True))
        result.add_row(", ".join(row[name] for name in names), *numbers)
    return result


def write_rows(name: str, rows: list[Row], console: Console) -> None:
    """Write RESULTS_DIR/bench/<name>.csv."""
    write_text(f"{name}.csv", _csv(rows), console)


def write_text(name: str, text: str, console: Console) -> None:
    """Write RESULTS_DIR/bench/<name>."""
    _write(_results() / name, text, console)


def store_measured(name: str, folder: Path, console: Console) -> None:
    """Copy the rows of RESULTS_DIR/bench/<name>.csv into <folder>/bench-<name>.csv.

    They replace rows of the same steps and machines; other rows stay. Raises UserError if the file has other columns.
    """
    new, path = _read(_results() / f"{name}.csv"), folder / f"bench-{name}.csv"
    replaced = {_key(row) for row in new}
    try:
        others = [row for row in _read(path) if _key(row) not in replaced] if path.exists() else []
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is not a table of {name} ({first_line(error)}): restore it, or remove it") from error
    _write(path, _csv([*others, *new]), console)


def _results() -> Path:
    return cli.results_dir() / "bench"


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _csv(rows: list[Row]) -> str:
    """Return a CSV text with the columns of all rows; missing values are empty."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str, console: Console) -> None:
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())
    console.print(f"written to {path}", soft_wrap=True, highlight=False, markup=False)
