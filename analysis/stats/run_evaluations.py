"""The evaluations of finished runs: stored beside their predictions, or else computed and cached by run key."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from analysis.load.store import EVALUATION, Store, UnusableRun
from analysis.stats.threads import one_thread
from cskd.evaluate.evaluation import Evaluation, Evaluations, load_evaluation, save_evaluation

WORKERS = 2  # runs at once; each takes about 150 MB for the 10,000 predictions of CIFAR-100


def evaluations(
    runs: pd.DataFrame,
    store: Store,
    evaluations_cache: Path,
    predictions_cache: Path,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Evaluations, list[str]]:
    """Return the evaluations of finished runs by run key, and a note for each run that cannot be evaluated.

    Args:
        evaluations_cache: a folder for evaluations that the training process has not stored.
        predictions_cache: the folder for downloaded predictions.
        advance: called after each run.
    """

    def cached(run: pd.Series) -> Path:
        return evaluations_cache / f"{re.sub(r'[^0-9A-Za-z-]', '_', run.run_key)}.npz"

    def read(run: pd.Series) -> Evaluation | None:
        predictions = store.predictions_file(run, predictions_cache)
        paths = (predictions.with_name(EVALUATION), cached(run))
        return next(filter(None, (load_evaluation(path, predictions) for path in paths)), None)

    def compute(run: pd.Series) -> Evaluation:
        from cskd.evaluate.evaluate_run import evaluate  # noqa: PLC0415 - imports torch

        evaluation = evaluate(store.load_predictions(run, predictions_cache))
        save_evaluation(cached(run), evaluation, store.predictions_file(run, predictions_cache))
        return evaluation

    by_key = {run.run_key: run for _, run in runs.drop_duplicates("run_key").iterrows()}
    results = {key: _or_note(read, run) for key, run in by_key.items()}
    missing = [key for key, result in results.items() if result is None]
    for _ in range(len(by_key) - len(missing)):
        advance()
    if missing:
        # One numerical thread per worker: more threads than cores would wait for each other.
        with one_thread(), ThreadPoolExecutor(WORKERS) as executor:
            computed = executor.map(partial(_or_note, compute), (by_key[key] for key in missing))
            for key, result in zip(missing, computed, strict=True):
                results[key] = result
                advance()
    evaluated = {key: result for key, result in results.items() if isinstance(result, Evaluation)}
    return evaluated, [result for result in results.values() if isinstance(result, str)]


def _or_note(evaluation_of: Callable[[pd.Series], Evaluation | None], run: pd.Series) -> Evaluation | str | None:
    """Return the evaluation of a run, or a note that says why there is none."""
    try:
        return evaluation_of(run)
    except UnusableRun as error:
        return f"{error}: not evaluated."
    except ValueError as error:
        return f"{run.run} cannot be evaluated ({error})."
