"""The files of what was measured: below RESULTS_DIR, and those that can be committed."""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from cskd.utils import cli
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import atomic_write, write_errors

MEASURED = Path("results/measured")  # beside the code, wherever RESULTS_DIR is; docs/speed.md is made of it
# rows that are alike in these are of the same step on the same machine
SAME = (
    *("dataset", "profile", "architecture", "method", "batch_size"),
    *("machine", "device", "precision", "compiled", "threads"),
)
Row = dict[str, Any]


def write_rows(name: str, rows: list[Row], console: Console) -> None:
    """RESULTS_DIR/bench/``name``.csv."""
    write_text(f"{name}.csv", _csv(rows), console)


def write_text(name: str, text: str, console: Console) -> None:
    """RESULTS_DIR/bench/``name``."""
    _save(_results() / name, text, console)


def keep(name: str, folder: Path, console: Console) -> None:
    """``folder``/bench-``name``.csv with the rows of RESULTS_DIR/bench/``name``.csv, in the place of earlier ones.

    Rows of other steps and machines stay. Raises UserError for a file there that is not one of such rows.
    """
    new, path = _rows(_results() / f"{name}.csv"), folder / f"bench-{name}.csv"
    measured = {_step(row) for row in new}
    try:
        others = [row for row in _rows(path) if _step(row) not in measured] if path.exists() else []
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is no table of {name} ({first_line(error)}): restore it, or remove it") from error
    _save(path, _csv([*others, *new]), console)


def _results() -> Path:
    return cli.results_dir() / "bench"


def _step(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in SAME)


def _rows(path: Path) -> list[Row]:
    """Every cell as the text that it is."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _csv(rows: list[Row]) -> str:
    """With the columns of all rows; empty where a row lacks one."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _save(path: Path, text: str, console: Console) -> None:
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())
    console.print(f"written to {path}", soft_wrap=True, highlight=False, markup=False)
