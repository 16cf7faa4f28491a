"""The evaluations of finished runs, cached by run key."""

import json
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load.cache import load_cached, store_cached
from analysis.load.store import Store, UnusableRun
from analysis.stats.evaluation import RESAMPLES, Evaluation, Evaluations, evaluate
from analysis.stats.threads import one_thread
from cskd.evaluate.bootstrap import resampling_weights
from cskd.evaluate.metrics import RESCALED, UNSCALED
from cskd.evaluate.scores import ReliabilityBins

VERSION = 3  # of the computed values; increase it when they change, so that cached values are discarded
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
        evaluations_cache: a folder. A cached evaluation is used if its run key, predictions and VERSION match.
        predictions_cache: the folder for downloaded predictions.
        advance: called after each run.
    """

    def evaluate_one(run: pd.Series) -> Evaluation | str:
        try:
            path = evaluations_cache / f"{re.sub(r'[^0-9A-Za-z-]', '_', run.run_key)}.npz"
            checksums = _checksums(store.predictions_file(run, predictions_cache))
            evaluation = _load(path, run.run_key, checksums)
            if evaluation is None:
                predictions = store.load_predictions(run, predictions_cache)
                labels = predictions.labels
                evaluation = evaluate(run.run_key, predictions, _weights(labels.tobytes(), labels.dtype.str))
                _save(path, checksums, evaluation)
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
    by_key = {result.run_key: result for result in results if isinstance(result, Evaluation)}
    return by_key, [result for result in results if isinstance(result, str)]


def _checksums(file: Path) -> str:
    """Return the checksums in a predictions file, which identify its content.

    Returns "" for an invalid file; ``Store.load_predictions`` then raises UnusableRun.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return " ".join(f"{part.filename}:{part.file_size}:{part.CRC:08x}" for part in archive.infolist())
    except Exception:  # zipfile raises many types for a damaged header
        return ""


@lru_cache(WORKERS)
def _weights(labels: bytes, dtype: str) -> np.ndarray:
    """Return the resampling weights of a test set. Cached, since consecutive runs share their test set."""
    return resampling_weights(np.frombuffer(labels, dtype).copy(), RESAMPLES)


def _version() -> list:
    return [VERSION, RESAMPLES, *(metric.name for metric in (*RESCALED, *UNSCALED))]


def _save(path: Path, checksums: str, evaluation: Evaluation) -> None:
    numbers = {
        "version": _version(),
        "source": checksums,
        "metrics": evaluation.metrics,
        "temperatures": evaluation.temperatures,
        "stored": evaluation.stored,
        "unused": evaluation.unused,
    }
    arrays = {f"replicates/{name}": values for name, values in evaluation.replicates.items()}
    arrays |= {f"bins/{field.name}": getattr(evaluation.bins, field.name) for field in fields(ReliabilityBins)}
    arrays |= {"predicted": evaluation.predicted_log_probability, "true": evaluation.true_log_probability}
    store_cached(path, {"numbers": np.array(json.dumps(numbers))} | arrays)


def _load(path: Path, run_key: str, checksums: str) -> Evaluation | None:
    """Return the cached evaluation, or None if it is missing, or has other predictions or another version."""
    arrays = load_cached(path)
    if arrays is None:
        return None
    numbers = json.loads(str(arrays["numbers"]))
    if (numbers["version"], numbers["source"]) != (_version(), checksums):
        return None

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return Evaluation(
        run_key,
        numbers["metrics"],
        numbers["temperatures"],
        group("replicates/"),
        ReliabilityBins(**group("bins/")),
        arrays["predicted"],
        arrays["true"],
        numbers["stored"],
        numbers["unused"],
    )
