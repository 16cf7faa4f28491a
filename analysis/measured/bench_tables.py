"""Markdown tables of training costs, from the files results/measured/bench-<part>.csv alone."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.load.source import commit_texts
from analysis.measured.csv_files import bench_path, bench_schema, read_rows, to_numbers
from analysis.tables.format import markdown_link, markdown_rows, to_markdown_text
from analysis.tables.model import Block, Column, name_once
from cskd.utils.cli import check_choice
from cskd.utils.numbers import ABSENT

CPU = "cpu"  # the device of rows measured without a GPU; a GPU has its name there
ENVIRONMENT = ["machine", "device", "precision", "compiled"]
TRAINED = ["dataset", "architecture", "profile"]
# What make bench needs for a file, if it is not the part of the same name.
BENCH_PARTS = {"operators": "profile", "reference": "reference REFERENCE=<a clone of the released code>"}
RATIO = ("ratio", "ratio_min", "ratio_max")


@dataclass(frozen=True)
class Number:
    """A numeric column of a table. A ratio is shown with its minimum and maximum."""

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
class BenchTable:
    """A table of one file, for one machine.

    numbers: its columns, for each row of the file.
    down: a column of the file, for a cross table: one row per value of this column, and ``numbers`` once for each cell.
        Cells differ in TRAINED and in the columns ``across``. At most ``max_rows`` rows are shown.
    """

    part: str
    numbers: tuple[Number, ...]
    down: str = ""
    across: tuple[str, ...] = ("method",)
    max_rows: int | None = None

    def caption(self, rows: pd.DataFrame) -> list[str]:
        """Return what was trained, if it is the same in all columns of a cross table."""
        return [_trained(rows.iloc[0])] if self.down and len(rows[TRAINED].drop_duplicates()) == 1 else []

    def markdown(self, rows: pd.DataFrame) -> str:
        return self._cross(rows) if self.down else self._long(rows)

    def _long(self, rows: pd.DataFrame) -> str:
        columns = (Column("trained"), Column("method"), *(Column(number.header, True) for number in self.numbers))
        groups = tuple(
            name_once(
                (_trained(row), row.method, *(number.text(row) for number in self.numbers))
                for _, row in trained.iterrows()
            )
            for _, trained in rows.groupby(TRAINED, sort=False)
        )
        return markdown_rows(columns, Block("", groups))

    def _cross(self, rows: pd.DataFrame) -> str:
        columns, lines = [Column(self.down)], {name: [name] for name in rows[self.down]}
        for _, cell in rows.groupby([*TRAINED, *self.across], sort=False):
            heading = [] if self.caption(rows) else [_trained(cell.iloc[0])]
            heading += cell.iloc[0][list(self.across)].tolist()
            by_name = cell.set_index(self.down)
            for number in self.numbers:
                header = [*heading, number.header] if len(self.numbers) > 1 else heading
                columns.append(Column(", ".join(header), True))
                for name, line in lines.items():
                    line.append(number.text(by_name.loc[name]) if name in by_name.index else ABSENT)
        shown = tuple(map(tuple, lines.values()))[: self.max_rows]
        return markdown_rows(tuple(columns), Block("", (shown,)))


def _milliseconds(header: str, column: str = "seconds_per_step") -> Number:
    return Number(header, column, 1000)


def _ratio(header: str) -> Number:
    return Number(header, RATIO[0], decimals=2)


OURS = _milliseconds("ms per step, ours")
TABLES: dict[str, BenchTable] = {
    "ratios": BenchTable("steps", (_ratio("x cross-entropy"),), "method", across=()),
    "steps": BenchTable(
        "steps",
        (
            _milliseconds("ms per step"),
            Number("images/s", "images_per_second"),
            Number("% of the matrix rate", "matmul_share", 100),
            Number("% input", "input_share", 100, 1),
        ),
    ),
    "pipelines": BenchTable(
        "pipelines",
        (OURS, _milliseconds("torchvision, fp32", "seconds_per_step_torchvision"), _ratio("x ours")),
    ),
    "reference": BenchTable(
        "reference",
        (OURS, _milliseconds("released code", "seconds_per_step_released"), _ratio("x ours")),
    ),
    "memory": BenchTable("memory", (Number("peak, MB", "peak_memory_megabytes"),)),
    "run": BenchTable(
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
    "profile": BenchTable("profile", (Number("s", "seconds", decimals=3), Number("%", "share", 100)), "phase"),
    "operators": BenchTable("operators", (Number("%", "share", 100, 1),), "operator", max_rows=8),
}


def bench(name: str, folder: Path, base: Path) -> str:
    """Return one Markdown table per machine of the file, with a remark if none was measured on a GPU.

    Args:
        folder: contains the CSV files.
        base: the folder of the document, to which links are relative.

    Raises UserError if the file is absent or cannot be read.
    """
    table = TABLES[check_choice("table of bench", name, TABLES)]
    numbers = tuple(dict.fromkeys(column for number in table.numbers for column in number.columns))
    path = bench_path(folder, table.part)
    command = f"make bench PARTS={BENCH_PARTS.get(table.part, table.part)} KEEP=1"
    rows = to_numbers(read_rows(path, bench_schema(table.part, numbers), command), path, numbers)
    parts = []
    for machine, measured in rows.groupby(ENVIRONMENT, sort=False):
        commits = commit_texts(measured.git_commit, measured.git_dirty)
        caption = [*table.caption(measured), _environment(*machine), f"commit {', '.join(commits)}"]
        parts += [table.markdown(measured), to_markdown_text(f"{'; '.join(caption)}.")]
    parts[-1] += " On a GPU: *not measured*." if (rows.device == CPU).all() else ""
    return "\n\n".join([*parts[:-1], f"{parts[-1]} Every column: {markdown_link(path, base)}."])


def _trained(row: pd.Series) -> str:
    return f"{row.dataset}, {row.architecture} ({row.profile})"


def _environment(machine: str, device: str, precision: str, compiled: str) -> str:
    return f"{machine} ({', '.join([device, precision, *(['compiled'] if compiled == 'True' else [])])})"
