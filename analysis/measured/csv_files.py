"""The checked-in files of measured results: a CSV file of runs and one of verdicts for each pool, and one a bench part.

Cells are kept as the texts that they are, so that a row which nobody changes keeps its bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.tables.runs import ENERGY, IDENTITY
from cskd.evaluate.metrics import TRACKED
from cskd.utils.errors import UserError, first_line

EVALUATED = (
    *("adaptive_ece", "classwise_ece"),
    *("temperature_training_split", "ece_training_split", "nll_training_split"),
    *("temperature_cross_fitted", "ece_cross_fitted", "nll_cross_fitted"),
    *("feature_spread", "prediction_variance"),
)
RUN_NUMBERS = (
    *("minutes", ENERGY),
    *(f"last_{metric.name}" for metric in TRACKED),
    "best_epoch",
    *(f"best_{metric.name}" for metric in TRACKED if metric.at_best_epoch),
    *EVALUATED,
)
RUN_COLUMNS = (
    *IDENTITY[:1],
    "cell_key",
    *IDENTITY[1:],
    *("started", "ended"),
    *("grids", "hyperparameter_source", "tuned", "trained", "overrides"),
    *RUN_NUMBERS,
)
VERDICT_NUMBERS = ("effect", "seeds_low", "seeds_high", "seeds_and_images_low", "seeds_and_images_high")
VERDICT_COLUMNS = (
    *("id", "where", "claim", "metric", "method", "against", "better", "dataset", "architecture"),
    *VERDICT_NUMBERS,
    *("n_method", "n_against", "how", "outcome", "reason", "left_out", "setting"),
)
MEASURED = Path("results/measured")  # beside the code, wherever RESULTS_DIR is
BENCH_KEY = (
    *("dataset", "profile", "architecture", "method", "batch_size"),
    *("machine", "device", "precision", "compiled", "threads"),
)
BENCH_ROWS = {"profile": ("phase",), "operators": ("operator",)}  # of which a step has several rows
RUN_KEY = ("run_key",)
VERDICT_KEY = ("id", "dataset", "architecture")
DATES = ("started", "ended")
# without these a row says nothing
RUN_NEEDED = (*RUN_KEY, "cell_key", "dataset", "architecture", "method", "seed", *DATES)
VERDICT_NEEDED = (*VERDICT_KEY, "claim", "metric", "n_method", "n_against", "outcome")


@dataclass(frozen=True)
class Merged:
    """Rows of a file and new ones put together. kept: rows of the file that stay as they are."""

    rows: pd.DataFrame
    added: int
    replaced: int
    kept: int

    @property
    def message(self) -> str:
        return f"{self.added} added, {self.replaced} replaced, {self.kept} kept"


def runs_path(folder: Path, pool: str) -> Path:
    return folder / f"runs-{pool}.csv"


def verdicts_path(folder: Path, pool: str) -> Path:
    return folder / f"verdicts-{pool}.csv"


def bench_path(folder: Path, part: str) -> Path:
    return folder / f"bench-{part}.csv"


def existing(path: Path, command: str) -> Path:
    """The path. command: that writes such files. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path} does not exist: '{command}' writes it, or take its marker out of the document")
    return path


def read_runs(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of a file of runs, see ``_read``."""
    return _read(path, RUN_COLUMNS, RUN_NEEDED, RUN_KEY)


def read_verdicts(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of a file of verdicts, see ``_read``."""
    return _read(path, VERDICT_COLUMNS, VERDICT_NEEDED, VERDICT_KEY)


def read_bench(path: Path, part: str, numbers: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a file of what was measured, which has the columns ``numbers`` as well. See ``_read``."""
    own = BENCH_ROWS.get(part, ())
    needed = (*BENCH_KEY, *own, "git_commit")
    rows, lacking = _read(path, (*needed, *numbers), needed, (*BENCH_KEY, *own))
    if lacking:
        raise UserError(f"{path} has no {', '.join(lacking)}: measure it again")
    return rows


def _read(path: Path, columns: tuple[str, ...], needed: tuple[str, ...], key: tuple[str, ...]):
    """(rows as texts, ``columns`` first; the names of those columns that the file lacks, which are empty).

    A file of an earlier version lacks what that did not write; what only a later one writes stays, at the end.
    Raises UserError for a file that cannot be read, has a row without one of ``needed``, or two of the same key.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")  # a short row's last cells are NaN
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        raise UserError(f"{path} cannot be read ({first_line(error)}): restore it, or remove it") from error
    absent = [name for name in needed if name not in rows or (rows[name] == "").any()]
    if absent:
        raise UserError(f"{path} has rows without {', '.join(absent)}: restore it, or remove it")
    if rows.duplicated(list(key)).any():
        twice = rows[rows.duplicated(list(key))].iloc[0]
        raise UserError(f"{path} has {' '.join(twice[list(key)])} twice: remove one of the two rows")
    lacking = tuple(name for name in columns if name not in rows)
    others = [name for name in rows if name not in columns]
    return rows.reindex(columns=[*columns, *others], fill_value=""), lacking


def typed(rows: pd.DataFrame, path: Path, numbers: tuple[str, ...], dates: tuple[str, ...] = ()) -> pd.DataFrame:
    """The rows with these columns as numbers and as dates (UTC), NaN and NaT where a cell is empty.

    Raises UserError for other texts. path: of the file, for that.
    """
    columns = {}
    for name in (*numbers, *dates):
        texts = rows[name].mask(rows[name] == "")
        try:
            columns[name] = pd.to_datetime(texts, utc=True) if name in dates else pd.to_numeric(texts).astype(float)
        except ValueError as error:
            raise UserError(f"{path}, column {name}: {first_line(error)}: correct it") from error
    return rows.assign(**columns)


def merge(
    new: pd.DataFrame, file: pd.DataFrame, key: tuple[str, ...], is_newer: Callable[[dict, dict], bool]
) -> Merged:
    """The new rows and those of the file, one of each key, in no order.

    is_newer(new row, row of the file): whether the new one takes the other's place.
    """
    columns = list(dict.fromkeys([*new, *file]))
    of_file, of_new = (
        {
            tuple(row[name] for name in key): row
            for row in rows.reindex(columns=columns, fill_value="").to_dict("records")
        }
        for rows in (file, new)
    )
    winners = {name: row for name, row in of_new.items() if name not in of_file or is_newer(row, of_file[name])}
    changed = [name for name, row in winners.items() if name in of_file and row != of_file[name]]
    added = len(winners.keys() - of_file.keys())
    rows = pd.DataFrame((of_file | winners).values(), columns=columns)
    return Merged(rows, added, len(changed), len(of_file) - len(changed))
