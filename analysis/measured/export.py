"""Write the runs and verdicts of a pool to the measured CSV files."""

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
    merge_runs,
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
    """Write the runs of a pool to ``folder``, merged with those that the file has, and the verdicts on all of them.

    A run that is tracked here is judged by what is tracked here. A pool without a finished run writes nothing. Counts
    and data quality notes go to ``log``.

    Args:
        results: where evaluations and downloaded predictions are cached.
        replace: let the verdicts replace those in the file even if some would lose seeds or an interval.

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
        verdicts = verdict_frame(judge(judged, load_claims(), evaluated))
        _write_verdicts(verdicts, verdicts_path(folder, pool.name), log, replace)
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

    rows, counts = merge_runs(_as_text(new), _stored(path, RUNS), is_newer)
    return _ordered(rows), counts


def _write_verdicts(new: pd.DataFrame, path: Path, log: Callable[[str], None], replace: bool) -> None:
    """Write the verdicts of a pool. They are corrected together, so they replace those in the file together.

    They stay if one of them would lose seeds, its interval over test images or its comparison, unless ``replace``.
    """
    new, stored = _as_text(new), _stored(path, VERDICTS)
    by_key = {tuple(row[name] for name in VERDICTS.key): row for row in new.to_dict("records")}
    lost = []
    for before in stored.to_dict("records"):
        after = by_key.get(key := tuple(before[name] for name in VERDICTS.key))
        if before["outcome"] != NOT_RUN and (after is None or _has_less_evidence(after, before)):
            seeds = [f"{row['n_method']}/{row['n_against']}" if row else "none" for row in (before, after)]
            lost.append(f"{' '.join(key)} (seeds {seeds[0]}, now {seeds[1]})")
    if lost and not replace:
        more = f", and {len(lost) - MAX_LISTED} more" if len(lost) > MAX_LISTED else ""
        log(
            f"{path}: verdicts not replaced, since these would have fewer seeds, no interval over test images or no "
            f"comparison: {', '.join(lost[:MAX_LISTED])}{more}: REPLACE=1 (--replace) replaces all."
        )
        return
    order = {claim.id: position for position, claim in enumerate(load_claims())}
    rows = new.assign(position=new.id.map(order)).sort_values(["position", *VERDICTS.key], ignore_index=True)
    write_rows(path, rows.drop(columns="position"))
    log(f"{path}: {len(rows)} verdicts.")


def _has_less_evidence(verdict: dict, stored: dict) -> bool:
    fewer_seeds = any(int(verdict[name]) < int(stored[name]) for name in ("n_method", "n_against"))
    return fewer_seeds or any(verdict[name] == "" != stored[name] for name in ("effect", "seeds_and_images_low"))


def _stored(path: Path, schema: Schema) -> pd.DataFrame:
    return read_rows(path, schema) if path.exists() else pd.DataFrame(columns=list(schema.columns), dtype=str)


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    numbered = runs.assign(seed_number=pd.to_numeric(runs.seed, errors="coerce"))
    return numbered.sort_values(ORDER, ignore_index=True).drop(columns="seed_number")


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with every cell as text, as in the file."""
    return pd.read_csv(StringIO(to_csv(frame)), dtype=str, keep_default_na=False)
