"""Write the runs and verdicts of a pool to the measured CSV files, merged with the rows that they have."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import NOT_RUN, judge, verdict_frame
from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import Pool
from analysis.load.store import Store
from analysis.measured.csv_files import (
    EVALUATED,
    RUN_COLUMNS,
    RUNS,
    UNUSED_METRICS,
    VERDICTS,
    Schema,
    merge,
    read_rows,
    runs_path,
    verdicts_path,
    write_rows,
)
from analysis.measured.stored_runs import settings_texts, with_stored_runs
from analysis.stats.run_evaluations import evaluations
from analysis.tables.format import to_csv
from analysis.tables.provenance import SETTINGS
from analysis.tables.runs import ENERGY, run_frame
from cskd.evaluate.evaluation import CROSS_FITTED, TRAINING_SPLIT, UNUSED, Evaluation, Evaluations

BOOLEAN_TEXT = {True: "true", False: "false"}  # as in MLflow tags
MAX_LISTED = 3  # verdicts in one message
ORDER = ["architecture", "dataset", "method", "seed_number", "run_key"]


def export_pool(
    pool: Pool, store: Store, folder: Path, results: Path, log: Callable[[str], None], replace: bool = False
) -> None:
    """Write the runs and verdicts of a pool to ``folder``, merged with the rows that the files have.

    The verdicts are on all runs of the file, also on those that are not tracked here. A pool without a finished run
    writes nothing. Counts and data quality notes go to ``log``.

    Args:
        results: where evaluations and downloaded predictions are cached.
        replace: let a verdict on fewer seeds replace the one in the file.

    Raises OSError if a file cannot be written, and UserError if an existing file cannot be read.
    """
    done, judged = pool.done, pool
    evaluated, problems = evaluations(done, store, results / ".evaluations", results / ".predictions")
    if done.empty:
        log(f"{pool.name}: no finished run: nothing written.")
    else:
        path = runs_path(folder, pool.name)
        rows, counts = _merge_runs(run_rows(pool, evaluated), path)
        write_rows(path, rows)
        absent = len(set(rows.run_key) - set(done.run_key))
        log(f"{path}: {len(rows)} runs: {counts} ({absent} not tracked here).")
        judged, notes = with_stored_runs(pool, rows, path)
        problems = [*notes, *problems]
        path = verdicts_path(folder, pool.name)
        rows, counts = _merge_verdicts(verdict_frame(judge(judged, load_claims(), evaluated)), path, log, replace)
        write_rows(path, rows)
        log(f"{path}: {len(rows)} verdicts: {counts}.")
    for note in (*judged.notes, *data_quality_notes(pool), *problems):
        log(f"{pool.name}: {note}")


def run_rows(pool: Pool, evaluated: Evaluations) -> pd.DataFrame:
    """Return one row for each finished run, with RUN_COLUMNS, sorted by architecture, dataset, method and seed."""
    done = pool.done.reset_index(drop=True)
    cells = pool.cells.set_index("cell_key")
    frame = run_frame(pool)[lambda runs: runs.run_key.isin(done.run_key)].reset_index(drop=True)
    numbers = pd.DataFrame([evaluated_numbers(evaluated.get(key)) for key in done.run_key], columns=list(EVALUATED))
    facts = {
        "cell_key": done.cell_key,
        "comparable": done.comparable.map(BOOLEAN_TEXT),
        "tuned": BOOLEAN_TEXT[pool.tuned],
        "overrides": json.dumps(pool.overrides),
        "grids": done.cell_key.map(cells.grids).map(" ".join),
        "hyperparameter_source": done.cell_key.map(cells.hyperparameter_source),
        "tuned_values": done.cell_key.map(cells.tuned_values),
        "settings": settings_texts(done),
        ENERGY: done.get(ENERGY, float("nan")),
    }
    settings = {name: done.get(f"params.{name}", "") for name in SETTINGS}
    return _ordered(pd.concat([frame.assign(**facts, **settings), numbers], axis=1)[list(RUN_COLUMNS)])


def evaluated_numbers(evaluation: Evaluation | None) -> dict[str, float]:
    """Return the columns EVALUATED of one run. NaN: the run has no evaluation, or the scaling was not fitted."""
    numbers = dict.fromkeys(EVALUATED, float("nan"))
    if evaluation is None:
        return numbers
    numbers |= {name: value for name, value in evaluation.values.items() if name in EVALUATED}
    numbers |= {f"unused_{name}": evaluation.unused.get(name, float("nan")) for name in UNUSED_METRICS}
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):
        name = scaling.replace(" ", "_").replace("-", "_")
        if scaling in evaluation.metrics:
            metrics = evaluation.metrics[scaling]
            numbers[f"temperature_{name}"] = evaluation.temperatures[scaling]
            numbers |= {f"ece_{name}": metrics["ece"], f"nll_{name}": metrics["nll"]}
    scaling = UNUSED if UNUSED in evaluation.metrics else CROSS_FITTED  # that of the metric scaled_nll
    if scaling in evaluation.metrics:
        numbers["scaled_temperature"] = evaluation.temperatures[scaling]
        numbers["scaled_ece"] = evaluation.metrics[scaling]["ece"]
    return numbers


def _merge_runs(new: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, str]:
    def is_newer(run: dict, stored: dict) -> bool:
        """Return whether the run ended later; of two with the same end, one with an evaluation is the newer."""
        return (run["ended"], run["feature_spread"] != "") >= (stored["ended"], stored["feature_spread"] != "")

    rows, counts = merge(_as_text(new), _stored(path, RUNS), RUNS, is_newer)
    return _ordered(rows), counts


def _merge_verdicts(
    new: pd.DataFrame, path: Path, log: Callable[[str], None], replace: bool
) -> tuple[pd.DataFrame, str]:
    """Merge the verdicts. "Not run" replaces no other outcome; fewer seeds replace more seeds only with ``replace``."""
    not_replaced = []

    def is_newer(verdict: dict, stored: dict) -> bool:
        if verdict["outcome"] == NOT_RUN and stored["outcome"] != NOT_RUN:
            return False
        if replace or not _has_less_evidence(verdict, stored):
            return True
        before, after = (f"{row['n_method']}/{row['n_against']}" for row in (stored, verdict))
        verdict_name = f"{verdict['id']} {verdict['dataset']} {verdict['architecture']}"
        not_replaced.append(f"{verdict_name} (seeds {before}, now {after})")
        return False

    rows, counts = merge(_as_text(new), _stored(path, VERDICTS), VERDICTS, is_newer)
    if not_replaced:
        more = f", and {len(not_replaced) - MAX_LISTED} more" if len(not_replaced) > MAX_LISTED else ""
        log(
            f"{path}: verdicts not replaced, since the new ones have fewer seeds or no test images: "
            f"{', '.join(not_replaced[:MAX_LISTED])}{more}: REPLACE=1 (--replace) replaces them."
        )
    order = {claim.id: position for position, claim in enumerate(load_claims())}
    rows = rows.assign(position=rows.id.map(order).fillna(len(order)))
    return rows.sort_values(["position", *VERDICTS.key], ignore_index=True).drop(columns="position"), counts


def _has_less_evidence(verdict: dict, stored: dict) -> bool:
    """Return whether a verdict has fewer seeds, or lacks the interval over test images that the stored one has."""
    fewer_seeds = any(int(verdict[name]) < int(stored[name]) for name in ("n_method", "n_against"))
    return fewer_seeds or verdict["seeds_and_images_low"] == "" != stored["seeds_and_images_low"]


def _stored(path: Path, schema: Schema) -> pd.DataFrame:
    return read_rows(path, schema) if path.exists() else pd.DataFrame(columns=list(schema.columns), dtype=str)


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    numbered = runs.assign(seed_number=pd.to_numeric(runs.seed, errors="coerce"))
    return numbered.sort_values(ORDER, ignore_index=True).drop(columns="seed_number")


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with every cell as text, as in the file."""
    return pd.read_csv(StringIO(to_csv(frame)), dtype=str, keep_default_na=False)
