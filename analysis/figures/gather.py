"""All figures of a pool, from its runs: what each needs, and what is said where something is missing."""

import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import softmax

from analysis.figures.calibration import calibration_figure
from analysis.figures.curves import learning_curves
from analysis.figures.embedding import PERPLEXITY, choose_images, embed, embedding_figure
from analysis.figures.log_probability import log_probability_figure
from analysis.figures.reliability_pairs import reliability_pairs
from analysis.figures.softmax_bars import choose_misclassified, softmax_bars
from analysis.figures.sources import Group, NotDrawn, class_names, groups, prepared_test_split
from analysis.load.cache import cached
from analysis.load.pools import Pool
from analysis.load.store import Store, UnusableRun
from analysis.stats.evaluation import RAW, SCALINGS, Evaluation
from analysis.stats.intervals import mean_interval
from analysis.stats.threads import one_thread
from analysis.tables.reliability import coarser, pooled
from cskd.evaluate.predictions import Predictions
from cskd.plots import DIAGRAM_BINS

BASELINE, OURS = "cross-entropy", "cs-kd"
EMBEDDED = (BASELINE, "virtual-softmax", "adacos", OURS)  # the paper's figure 3
PICTURED = "cifar100"  # the dataset of the paper's figures 1 (b) and 3
CURVES = {
    "test/top1_error": "test error (%)",
    "test/ece": "test ECE (%)",
    "train/loss": "training loss (each method's own)",
}

Say = Callable[[str], None]


def pool_figures(
    pool: Pool, store: Store, evaluations: dict[str, Evaluation], cache: Path, data_dir: Path
) -> tuple[dict[str, Figure], list[str]]:
    """``{name: figure}`` of what can be drawn, and a note on what cannot or lacks something.

    evaluations: by run key. cache: where predictions and histories are kept. data_dir: below which datasets are
    prepared; without the one of the runs, softmax bars stand without their images.
    """
    figures: dict[str, Figure] = {}
    notes: list[str] = []
    every = list(groups(pool, store, evaluations, cache))
    pictured = _pictured(every)
    for group in every:
        for kind, draw in _drawings(group, group in pictured, data_dir):
            prefix = f"{kind}, {group.dataset}, {group.architecture}"

            def say(text: str, prefix: str = prefix) -> None:
                notes.append(f"{prefix}: {text}.")

            try:
                figures[f"{kind.replace(' ', '')}-{group.file}"] = draw(group, say)
            except (NotDrawn, UnusableRun) as error:
                say(f"not drawn, {error}")
    return figures, notes


def _pictured(every: list[Group]) -> list[Group]:
    """One group an architecture, whose single images are shown."""
    by_architecture: dict[str, Group] = {}
    for group in (group for group in every if group.methods()):
        if group.architecture not in by_architecture or group.dataset == PICTURED:
            by_architecture[group.architecture] = group
    return list(by_architecture.values())


def _drawings(group: Group, pictured: bool, data_dir: Path) -> Iterator[tuple[str, Callable[[Group, Say], Figure]]]:
    if pictured:
        yield "figure 1b", lambda group, say: _softmax_bars(group, say, data_dir)
    yield "figure 2", _log_probability
    if pictured:
        yield "figure 3", _embedding
    yield "figure 5", _reliability_pairs
    yield "curves", _curves
    yield "calibration", _calibration


def _softmax_bars(group: Group, say: Say, data_dir: Path) -> Figure:
    group.require((BASELINE, OURS))
    seed, runs = group.of_one_seed([BASELINE, OURS])
    predictions = group.predictions(runs)
    first = predictions[BASELINE]
    rows = choose_misclassified(first.logits, first.labels)
    if not len(rows):
        raise NotDrawn(f"{BASELINE} misclassifies no image")
    wrong = int((first.logits.argmax(axis=1) != first.labels).sum())
    which = f"{len(rows)} of the {wrong:,} test images that {BASELINE} misclassifies, drawn at random (fixed seed)"
    return softmax_bars(
        f"{group.title}, seed {seed}\n{which}",
        {method: softmax(each.logits[rows].astype(float), axis=1) for method, each in predictions.items()},
        first.labels[rows],
        class_names(first),
        _images(first, rows, runs[BASELINE], data_dir, say),
    )


def _images(
    predictions: Predictions, rows: np.ndarray, run: pd.Series, data_dir: Path, say: Say
) -> list[np.ndarray] | None:
    """The images of these rows; None, with a note, where they are not at hand."""
    if predictions.indices is None:
        say("without images, since runs of earlier versions do not tell which they were tested on")
        return None
    split = prepared_test_split(run.get("params.data_digest"), data_dir)
    if split is None:
        say(f"without images, since those that {run.run} was tested on are not prepared in DATA_DIR")
        return None
    return [split.image(index) for index in predictions.indices[rows]]


def _log_probability(group: Group, say: Say) -> Figure:
    group.require((BASELINE, OURS))
    evaluated = {method: group.evaluated(method) for method in (BASELINE, OURS)}
    predicted, true = (
        {method: np.concatenate([getattr(each, name) for each in found]) for method, found in evaluated.items()}
        for name in ("predicted_log_probability", "true_log_probability")
    )
    for method, values in predicted.items():
        if not len(values):
            raise NotDrawn(f"{method} misclassifies no image")
    return log_probability_figure(f"{group.title}: misclassified test images, {_pooled(evaluated)}", predicted, true)


def _embedding(group: Group, say: Say) -> Figure:
    methods = [method for method in EMBEDDED if len(group.runs(method))]
    if not methods:
        raise NotDrawn(", ".join(map(group.missing, EMBEDDED)))
    for method in EMBEDDED:
        if method not in methods:
            say(group.missing(method))
    seed, runs = group.of_one_seed(methods)
    predictions = group.predictions(runs)
    first = predictions[methods[0]]
    rows = choose_images(first.labels)
    try:
        # One thread each: of several, additions come in another order, and on a busy machine they wait for each other.
        with one_thread(), ThreadPoolExecutor(2) as executor:
            jobs = {
                method: executor.submit(_embedded, group.cache / runs[method].run_id, each.features, rows)
                for method, each in predictions.items()
            }
            points = {method: job.result() for method, job in jobs.items()}
    except ValueError as error:
        raise NotDrawn(str(error)) from error
    spread = {
        method: group.evaluations[run.run_key].separation["feature_spread"]
        for method, run in runs.items()
        if run.run_key in group.evaluations
    }
    labels = first.labels[rows]
    number = len(np.unique(labels))
    title = f"{group.title}, seed {seed}\nt-SNE of {len(rows):,} test images of {number} classes, drawn at random"
    return embedding_figure(title, points, labels, class_names(first), spread)


def _embedded(kept_in: Path, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of these rows of the features, kept by what is embedded and how."""
    path = kept_in / f"embedding-{zlib.crc32(rows.tobytes()):08x}-{PERPLEXITY}.npz"
    return cached(path, lambda: {"points": embed(features[rows])})["points"]


def _reliability_pairs(group: Group, say: Say) -> Figure:
    group.require((OURS,))
    evaluated = {OURS: group.evaluated(OURS)}
    for method in group.methods():
        try:
            evaluated[method] = group.evaluated(method)
        except NotDrawn as error:
            say(str(error))
    if len(evaluated) == 1:
        raise NotDrawn(f"nothing to set beside {OURS}")
    reliability = {
        method: (
            coarser(pooled(each.bins for each in found), DIAGRAM_BINS),
            float(np.mean([each.metrics[RAW]["ece"] for each in found])) / 100,
        )
        for method, found in evaluated.items()
    }
    return reliability_pairs(f"{group.title}, {_pooled(evaluated)}", OURS, reliability)


def _curves(group: Group, say: Say) -> Figure:
    curves: dict[str, dict[str, np.ndarray]] = {label: {} for label in CURVES.values()}
    drops = set()
    for method in group.methods():
        histories = []
        for _, run in group.runs(method).iterrows():
            try:
                histories.append(group.store.load_history(run, list(CURVES), group.cache))
            except UnusableRun as error:
                say(str(error))
            else:
                drops.add(run.get("params.schedule.milestones"))
        if len({len(history) for history in histories}) > 1:
            say(f"{method}: its seeds have different numbers of epochs")
        elif histories:
            for name, label in CURVES.items():
                curves[label][method] = np.stack([history[name].to_numpy() for history in histories])
    if not curves["test error (%)"]:
        raise NotDrawn("no finished run has a history")
    [message] = drops if len(drops) == 1 else [None]
    return learning_curves(group.title, curves, json.loads(message) if isinstance(message, str) else ())


def _calibration(group: Group, say: Say) -> Figure:
    ece, intervals = {}, {}
    for method in group.methods():
        try:
            found = group.evaluated(method)
        except NotDrawn as error:
            say(str(error))
            continue
        ece[method] = {
            scaling: np.array([each.metrics[scaling]["ece"] for each in found if scaling in each.metrics])
            for scaling in SCALINGS
            if any(scaling in each.metrics for each in found)
        }
        replicates = [each.replicates["ece"] for each in found]
        interval = mean_interval(ece[method][RAW], replicates).interval
        if np.isfinite(interval).all():
            intervals[method] = {RAW: interval}
    if not ece:
        raise NotDrawn("no run is evaluated")
    return calibration_figure(group.title, ece, intervals)


def _pooled(evaluated: dict[str, list[Evaluation]]) -> str:
    seeds = sorted({len(found) for found in evaluated.values()})
    return "1 seed" if seeds == [1] else ", ".join(map(str, seeds)) + " seeds pooled"
