"""The evaluations of finished runs: stored beside their predictions, or else computed and cached by run key."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from analysis.load.store import EVALUATION, Store, UnusableRun
from analysis.stats.threads import one_thread
from cskd.evaluate.evaluation import (
    Evaluation,
    Evaluations,
    evaluate,
    load_evaluation,
    save_evaluation,
)

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

    def evaluate_one(run: pd.Series) -> Evaluation | str:
        try:
            predictions = store.predictions_file(run, predictions_cache)
            cached = evaluations_cache / f"{re.sub(r'[^0-9A-Za-z-]', '_', run.run_key)}.npz"
            for path in (predictions.with_name(EVALUATION), cached):
                if (evaluation := load_evaluation(path, predictions)) is not None:
                    return evaluation
            evaluation = evaluate(store.load_predictions(run, predictions_cache))
            save_evaluation(cached, evaluation, predictions)
            return evaluation
        except UnusableRun as error:
            return f"{error}: not evaluated."
        except ValueError as error:
            return f"{run.run} cannot be evaluated ({error})."
        finally:
            advance()

    unique = runs.drop_duplicates("run_key")
    # One numerical thread per worker: more threads than cores would wait for each other.
    with one_thread(), ThreadPoolExecutor(WORKERS) as executor:
        results = list(executor.map(evaluate_one, (run for _, run in unique.iterrows())))
    results = dict(zip(unique.run_key, results, strict=True))
    by_key = {key: result for key, result in results.items() if isinstance(result, Evaluation)}
    return by_key, [result for result in results.values() if isinstance(result, str)]
