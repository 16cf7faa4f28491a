"""What training costs, as Markdown tables: made of the files results/measured/bench-<part>.csv alone."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.measured.csv_files import bench_path, existing, read_bench, typed
from analysis.tables.format import markdown_link, markdown_rows, to_markdown_text
from analysis.tables.model import ABSENT, Block, Column
from cskd.utils import cli

CPU = "cpu"  # the device of what was measured on none other; a GPU has its name there
MACHINE = ["machine", "device", "precision", "compiled"]
TRAINED = ["dataset", "architecture", "profile"]
MEASURED_BY = {"operators": "profile"}  # the part of make bench, where it has another name
RATIO = ("ratio", "ratio_min", "ratio_max")


@dataclass(frozen=True)
class Number:
    """A column of a file as it is shown. ratio: with its least and most."""

    header: str
    column: str
    scale: float = 1.0
    decimals: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        return RATIO if self.column == RATIO[0] else (self.column,)

    def text(self, row: pd.Series) -> str:
        values = [row[name] * self.scale for name in self.columns]
        if pd.isna(values).any():
            return ABSENT
        middle, *ends = (f"{value:,.{self.decimals}f}" for value in values)
        return f"{middle} ({' to '.join(ends)})" if ends else middle


@dataclass(frozen=True)
class Listed:
    """A row of the table for each of the file."""

    part: str
    numbers: tuple[Number, ...]

    def markdown(self, rows: pd.DataFrame) -> str:
        columns = (Column("trained"), Column("method"), *(Column(each.header, number=True) for each in self.numbers))
        groups = tuple(
            tuple(
                (_trained(row) if not index else "", row.method, *(each.text(row) for each in self.numbers))
                for index, (_, row) in enumerate(own.iterrows())
            )
            for _, own in rows.groupby(TRAINED, sort=False)
        )
        return markdown_rows(columns, Block("", groups))

    def below(self, rows: pd.DataFrame) -> list[str]:
        return []


@dataclass(frozen=True)
class Crossed:
    """A row for each value of ``down``, and for each cell that was trained the columns ``numbers``.

    across: what tells cells apart beside what was trained. most: rows that are shown.
    """

    part: str
    down: str
    numbers: tuple[Number, ...]
    across: tuple[str, ...] = ("method",)
    most: int | None = None

    def markdown(self, rows: pd.DataFrame) -> str:
        cells = [own for _, own in rows.groupby([*TRAINED, *self.across], sort=False)]
        columns = []
        for own in cells:
            trained = [] if self.below(rows) else [_trained(own.iloc[0])]
            heading = [*trained, *own[list(self.across)].iloc[0]]
            columns += [Column(", ".join([*heading, *self._told(each)]), number=True) for each in self.numbers]
        by_name = [own.set_index(self.down) for own in cells]
        lines = tuple(
            (name, *(self._text(own, name, each) for own in by_name for each in self.numbers))
            for name in list(dict.fromkeys(rows[self.down]))[: self.most]
        )
        return markdown_rows((Column(self.down), *columns), Block("", (lines,)))

    def below(self, rows: pd.DataFrame) -> list[str]:
        """What was trained, where that is the same in all columns."""
        return [_trained(rows.iloc[0])] if len(rows[TRAINED].drop_duplicates()) == 1 else []

    def _told(self, number: Number) -> list[str]:
        return [number.header] if len(self.numbers) > 1 else []

    def _text(self, rows: pd.DataFrame, name: str, number: Number) -> str:
        return number.text(rows.loc[name]) if name in rows.index else ABSENT


def _milliseconds(header: str, column: str = "seconds_per_step") -> Number:
    return Number(header, column, 1000)


def _ratio(header: str) -> Number:
    return Number(header, RATIO[0], decimals=2)


OURS = _milliseconds("ms a step, ours")
TABLES: dict[str, Listed | Crossed] = {
    "ratios": Crossed("steps", "method", (_ratio("x cross-entropy"),), across=()),
    "steps": Listed(
        "steps",
        (
            _milliseconds("ms a step"),
            Number("images/s", "images_per_second"),
            Number("% of the matrix rate", "matmul_share", 100),
            Number("% input", "input_share", 100, 1),
        ),
    ),
    "pipelines": Listed(
        "pipelines",
        (OURS, _milliseconds("torchvision, fp32", "seconds_per_step_torchvision"), _ratio("x ours")),
    ),
    "reference": Listed(
        "reference",
        (OURS, _milliseconds("released code", "seconds_per_step_released"), _ratio("x ours")),
    ),
    "memory": Listed("memory", (Number("peak, MB", "peak_memory_megabytes"),)),
    "run": Listed(
        "run",
        (
            Number("epochs", "epochs"),
            Number("start to first step, s", "start_to_first_step_seconds", decimals=1),
            Number("first step, s", "first_step_seconds", decimals=2),
            Number("1,000 test images, s", "evaluation_seconds_per_1000_images", decimals=2),
            Number("the run, s", "run_seconds"),
            Number("% tracking", "tracking_share", 100, 1),
        ),
    ),
    "profile": Crossed("profile", "phase", (Number("s", "seconds", decimals=3), Number("%", "share", 100))),
    "operators": Crossed("operators", "operator", (Number("%", "share", 100, 1),), most=8),
}


def bench(name: str, folder: Path, base: Path) -> str:
    """A table of ``TABLES`` for each machine that it was measured on, and whether a GPU is among them.

    folder: of the files. base: of the document, to which links are relative.
    Raises UserError where there is no file or one that cannot be read.
    """
    table = TABLES[cli.check_choice("table of bench", name, TABLES)]
    numbers = tuple(dict.fromkeys(column for each in table.numbers for column in each.columns))
    path = existing(
        bench_path(folder, table.part), f"make bench PARTS={MEASURED_BY.get(table.part, table.part)} KEEP=1"
    )
    rows = typed(read_bench(path, table.part, numbers), path, numbers)
    parts = []
    for machine, own in rows.groupby(MACHINE, sort=False):
        message = "; ".join([*table.below(own), _measured_on(*machine), f"commit {_commits(own)}"])
        parts += [table.markdown(own), to_markdown_text(f"{message}.")]
    parts[-1] += " On a GPU: *not measured*." if (rows.device == CPU).all() else ""
    return "\n\n".join([*parts[:-1], f"{parts[-1]} Every column: {markdown_link(path, base)}."])


def _trained(row: pd.Series) -> str:
    return f"{row.dataset}, {row.architecture} ({row.profile})"


def _measured_on(machine: str, device: str, precision: str, compiled: str) -> str:
    return f"{machine} ({', '.join([device, precision, *(['compiled'] if compiled == 'True' else [])])})"


def _commits(rows: pd.DataFrame) -> str:
    pairs = dict.fromkeys(zip(rows.git_commit, rows.git_dirty, strict=True))
    return ", ".join(f"{commit[:12]}{' (dirty)' if dirty == 'True' else ''}" for commit, dirty in pairs)
