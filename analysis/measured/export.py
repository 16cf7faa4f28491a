"""Writing the measured CSV files: the runs and verdicts of a pool, merged with the rows of the files."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import NOT_RUN, judge
from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import Pool
from analysis.load.store import Store
from analysis.measured.csv_files import (
    EVALUATED,
    RUN_COLUMNS,
    RUNS,
    TRAINING_SETTINGS,
    VERDICTS,
    Schema,
    merge,
    read_rows,
    runs_path,
    verdicts_path,
    write_rows,
)
from analysis.stats.evaluation import CROSS_FITTED, TRAINING_SPLIT, Evaluation, evaluations
from analysis.tables.format import to_csv
from analysis.tables.runs import ENERGY, run_frame
from analysis.tables.verdicts import verdict_frame

TRUTH = {True: "true", False: "false"}  # as in MLflow tags
ORDER = ["architecture", "dataset", "method", "seed_number", "run_key"]


def export_pool(pool: Pool, store: Store, folder: Path, results: Path, log: Callable[[str], None]) -> None:
    """Write the runs and verdicts of a pool to ``folder``, merged with the rows that the files have.

    A pool without a finished run writes nothing. Counts and data quality notes go to ``log``.

    Args:
        results: where evaluations and downloaded predictions are cached.

    Raises OSError if a file cannot be written, and UserError if an existing file cannot be read.
    """
    done = pool.done
    evaluated, problems = evaluations(done, store, results / ".evaluations", results / ".predictions")
    if done.empty:
        log(f"{pool.name}: no finished run: nothing written.")
    else:
        path = runs_path(folder, pool.name)
        rows, counts = _merge_runs(run_rows(pool, evaluated), path)
        write_rows(path, rows)
        absent = len(set(rows.run_key) - set(done.run_key))
        log(f"{path}: {len(rows)} runs: {counts} ({absent} not tracked here).")
        path = verdicts_path(folder, pool.name)
        rows, counts = _merge_verdicts(verdict_frame(judge(pool, load_claims(), evaluated)), path, log)
        write_rows(path, rows)
        log(f"{path}: {len(rows)} verdicts: {counts}.")
    for note in (*pool.notes, *data_quality_notes(pool), *problems):
        log(f"{pool.name}: {note}")


def run_rows(pool: Pool, evaluated: dict[str, Evaluation]) -> pd.DataFrame:
    """Return one row a finished run with the columns RUN_COLUMNS, by architecture, dataset, method and seed.

    evaluated: by run key.
    """
    done = pool.done.reset_index(drop=True)
    cells = pool.cells.set_index("cell_key")
    frame = run_frame(pool)[lambda runs: runs.run_key.isin(done.run_key)].reset_index(drop=True)
    numbers = pd.DataFrame([evaluated_numbers(evaluated.get(key)) for key in done.run_key], columns=list(EVALUATED))
    facts = {
        "cell_key": done.cell_key,
        "comparable": done.comparable.map(TRUTH),
        "tuned": TRUTH[pool.tuned],
        "overrides": json.dumps(pool.overrides),
        "grids": done.cell_key.map(cells.grids).map(" ".join),
        "hyperparameter_source": done.cell_key.map(cells.hyperparameter_source),
        "tuned_values": done.cell_key.map(cells.tuned_values),
        ENERGY: done.get(ENERGY, float("nan")),
    }
    settings = {name: done.get(f"params.{name}", "") for name in TRAINING_SETTINGS}
    return _ordered(pd.concat([frame.assign(**facts, **settings), numbers], axis=1)[list(RUN_COLUMNS)])


def evaluated_numbers(evaluation: Evaluation | None) -> dict[str, float]:
    """Return the columns EVALUATED of one run; NaN without an evaluation or for a scaling that was not fitted."""
    numbers = dict.fromkeys(EVALUATED, float("nan"))
    if evaluation is None:
        return numbers
    numbers |= {name: value for name, value in evaluation.values.items() if name in EVALUATED}
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):
        name = scaling.replace(" ", "_").replace("-", "_")
        if scaling in evaluation.metrics:
            metrics = evaluation.metrics[scaling]
            numbers[f"temperature_{name}"] = evaluation.temperatures[scaling]
            numbers |= {f"ece_{name}": metrics["ece"], f"nll_{name}": metrics["nll"]}
    return numbers


def _merge_runs(new: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, str]:
    def is_newer(run: dict, stored: dict) -> bool:
        """Return True for a run that ended later, and for the same run unless its predictions were lost."""
        return (run["ended"], run["feature_spread"] != "") >= (stored["ended"], stored["feature_spread"] != "")

    rows, counts = merge(_as_text(new), _stored(path, RUNS), RUNS, is_newer)
    return _ordered(rows), counts


def _merge_verdicts(new: pd.DataFrame, path: Path, log: Callable[[str], None]) -> tuple[pd.DataFrame, str]:
    """Merge the verdicts; log each one that has fewer seeds. A verdict that is not run here replaces no other."""

    def is_newer(verdict: dict, stored: dict) -> bool:
        return verdict["outcome"] != NOT_RUN or stored["outcome"] == NOT_RUN

    stored = _stored(path, VERDICTS)
    rows, counts = merge(_as_text(new), stored, VERDICTS, is_newer)
    replaced = rows.merge(stored, on=list(VERDICTS.key), suffixes=("", "_before"))
    for row in replaced.itertuples():
        new_counts, old_counts = (row.n_method, row.n_against), (row.n_method_before, row.n_against_before)
        if any(int(new) < int(old) for new, old in zip(new_counts, old_counts, strict=True)):
            name = f"{row.id} {row.dataset} {row.architecture}"
            log(f"{name}: the new verdict has {'/'.join(new_counts)} seeds, the old one had {'/'.join(old_counts)}.")
    order = {claim.id: position for position, claim in enumerate(load_claims())}
    rows = rows.assign(position=rows.id.map(order).fillna(len(order)))
    return rows.sort_values(["position", *VERDICTS.key], ignore_index=True).drop(columns="position"), counts


def _stored(path: Path, schema: Schema) -> pd.DataFrame:
    return read_rows(path, schema) if path.exists() else pd.DataFrame(columns=list(schema.columns), dtype=str)


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    numbered = runs.assign(seed_number=pd.to_numeric(runs.seed, errors="coerce"))
    return numbered.sort_values(ORDER, ignore_index=True).drop(columns="seed_number")


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with every cell as text, as in the file."""
    return pd.read_csv(StringIO(to_csv(frame)), dtype=str, keep_default_na=False)
