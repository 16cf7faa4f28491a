"""The CSV files of measured results: their columns, reading, and merging of new runs.

A pool has a file of runs and a file of verdicts; each part of the benchmark has a file. Cells are read as text, so that
an unchanged row keeps its bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.claims.columns import VERDICT_COLUMNS
from analysis.tables.format import to_csv
from analysis.tables.provenance import SETTINGS
from analysis.tables.runs import ENERGY
from cskd.evaluate.metrics import RESCALED, STORED, TRACKED, UNSCALED
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import atomic_write

MEASURED = Path("results/measured")  # in the repository, independent of RESULTS_DIR
DATES = ("started", "ended")
UNUSED_METRICS = ("top1_error", "ece", "nll")  # of the training images that a run did not use
EVALUATED = (
    *(metric.name for metric in RESCALED if metric.when == STORED),
    *("temperature_training_split", "ece_training_split", "nll_training_split"),
    *("temperature_cross_fitted", "ece_cross_fitted", "nll_cross_fitted"),
    *(metric.name for metric in UNSCALED),
    *("scaled_temperature", "scaled_ece"),  # with the temperature of scaled_nll
    *(f"unused_{name}" for name in UNUSED_METRICS),
)
RUN_NUMBERS = (
    *("minutes", ENERGY),
    *(f"last_{metric.name}" for metric in TRACKED),
    "best_epoch",
    *(f"best_{metric.name}" for metric in TRACKED if metric.at_best_epoch),
    *EVALUATED,
)
RUN_COLUMNS = (
    *("run_key", "cell_key", "profile", "tuned", "overrides", "architecture", "dataset", "method", "seed"),
    *("state", "reason", "comparable", "comparable_reason"),
    *("git_commit", "git_dirty", "source_digest", "machine", "device", "threads", "precision", "compiled", *DATES),
    *("grids", "hyperparameter_source", "tuned_values", *SETTINGS, "settings"),
    *RUN_NUMBERS,
)
BENCH_KEY = (
    *("dataset", "profile", "architecture", "method", "batch_size"),
    *("machine", "device", "precision", "compiled", "threads"),
)
BENCH_ROWS = {"profile": ("phase",), "operators": ("operator",)}  # parts with several rows per step


@dataclass(frozen=True)
class Schema:
    """The columns of a file.

    key: the columns that identify a row. required: columns without empty cells. optional: columns that a file may lack,
    such as those of a metric that is newer than the file; they are then empty.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


RUNS = Schema(
    RUN_COLUMNS,
    key=("run_key",),
    required=("run_key", "cell_key", "profile", "dataset", "architecture", "method", "seed", *DATES),
    optional=("source_digest", "settings", *RUN_NUMBERS),
)
VERDICTS = Schema(
    VERDICT_COLUMNS,
    key=("id", "dataset", "architecture"),
    required=("id", "dataset", "architecture", "claim", "metric", "n_method", "n_against", "outcome"),
)


def bench_schema(part: str, numbers: tuple[str, ...]) -> Schema:
    """Return the schema of a part of the benchmark. numbers: the columns that a table shows."""
    key = (*BENCH_KEY, *BENCH_ROWS.get(part, ()))
    return Schema((*key, "git_commit", "git_dirty", *numbers), key, (*key, "git_commit"))


def runs_path(folder: Path, pool: str) -> Path:
    return folder / f"runs-{pool}.csv"


def verdicts_path(folder: Path, pool: str) -> Path:
    return folder / f"verdicts-{pool}.csv"


def bench_path(folder: Path, part: str) -> Path:
    return folder / f"bench-{part}.csv"


def read_rows(path: Path, schema: Schema, command: str = "") -> pd.DataFrame:
    """Return the rows of a file as text, with the schema's columns first.

    command: the command that writes such files, for the error message. Raises UserError if the file is absent or
    damaged, has a row without a required value, or two rows with the same key.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: '{command}' writes it; or remove its marker from the document")
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")  # the last cells of a short row are NaN
    except (OSError, ValueError) as error:  # the errors of pandas are ValueErrors
        raise UserError(f"{path} cannot be read ({first_line(error)}): restore it, or remove it") from error
    absent = [name for name in schema.columns if name not in rows and name not in schema.optional]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}: restore it, or remove it")
    empty = [name for name in schema.required if (rows[name] == "").any()]
    if empty:
        raise UserError(f"{path} has rows without {', '.join(empty)}: restore it, or remove it")
    repeated = rows[rows.duplicated(list(schema.key))]
    if len(repeated):
        key = " ".join(repeated.iloc[0][list(schema.key)])
        raise UserError(f"{path} has {key} twice: remove one of the two rows")
    others = [name for name in rows if name not in schema.columns]
    return rows.reindex(columns=[*schema.columns, *others], fill_value="")


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    with atomic_write(path) as file:
        file.write(to_csv(rows).encode())


def to_numbers(rows: pd.DataFrame, path: Path, numbers: tuple[str, ...], dates: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return the rows with these columns as numbers and dates (UTC); an empty cell is NaN or NaT.

    path: the file, for the error message. Raises UserError for other text.
    """
    columns = {}
    for name in (*numbers, *dates):
        texts = rows[name].mask(rows[name] == "")
        try:
            columns[name] = pd.to_datetime(texts, utc=True) if name in dates else pd.to_numeric(texts).astype(float)
        except ValueError as error:
            raise UserError(f"{path}, column {name}: {first_line(error)}: correct it") from error
    return rows.assign(**columns)


def merge_runs(
    new: pd.DataFrame, stored: pd.DataFrame, is_newer: Callable[[dict, dict], bool]
) -> tuple[pd.DataFrame, str]:
    """Return one row per run key from the new and the stored rows, unordered, and a text with the counts.

    is_newer(new row, stored row): returns True if the new row replaces the stored one. Columns that only the stored
    rows have stay, such as those of a metric that is registered elsewhere.
    """
    stored_by_key, new_by_key = ({row["run_key"]: row for row in rows.to_dict("records")} for rows in (stored, new))
    added = {key: row for key, row in new_by_key.items() if key not in stored_by_key}
    replaced = {
        key: row
        for key, row in new_by_key.items()
        if key not in added and row.items() - stored_by_key[key].items() and is_newer(row, stored_by_key[key])
    }
    counts = f"{len(added)} added, {len(replaced)} replaced, {len(stored_by_key) - len(replaced)} unchanged"
    rows = pd.DataFrame((stored_by_key | added | replaced).values(), columns=list(stored))
    return rows.fillna(""), counts
