"""Figure 3 of the paper: t-SNE of the test images' features."""

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from analysis.figures.sources import Group, NotDrawn, Note, class_names
from analysis.load.cache import cached
from analysis.paper.published import BASELINE, CS_KD
from analysis.stats.threads import one_thread
from analysis.tables.files import Drawing
from cskd.plots import plain, wrapped
from cskd.utils.seeding import choose

METHODS = (BASELINE, "virtual-softmax", "adacos", CS_KD)
CLASSES = 20
IMAGES = 1000
PERPLEXITY = 30
MARKERS = "os^vD<>PX*"
COLORS = matplotlib.color_sequences["tab20"]


def draw(group: Group, note: Note) -> Drawing:
    methods = [method for method in METHODS if len(group.runs(method))]
    if not methods:
        raise NotDrawn(", ".join(map(group.missing, METHODS)))
    for method in METHODS:
        if method not in methods:
            note(group.missing(method))
    seed, runs, predictions = group.predictions(methods)
    first = predictions[methods[0]]
    rows = choose_images(first.labels)
    try:
        # One thread per job: the order of additions, and so the result, depends on the number of threads.
        with one_thread(), ThreadPoolExecutor(2) as executor:
            jobs = {
                method: executor.submit(_cached_embedding, group.cache / runs[method].run_id, of_method.features, rows)
                for method, of_method in predictions.items()
            }
            points = {method: job.result() for method, job in jobs.items()}
    except ValueError as error:
        raise NotDrawn(str(error)) from error
    spread = {
        method: group.evaluations[run.run_key].stored["feature_spread"]
        for method, run in runs.items()
        if run.run_key in group.evaluations
    }
    labels = first.labels[rows]
    classes = len(np.unique(labels))
    title = f"{group.title}, seed {seed}\nt-SNE of {len(rows):,} test images of {classes} classes, drawn at random"
    return Drawing(embedding_figure, title, points, labels, class_names(first), spread)


def _cached_embedding(folder: Path, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    path = folder / f"embedding-{zlib.crc32(rows.tobytes()):08x}-{PERPLEXITY}.npz"
    return cached(path, lambda: {"points": embed(features[rows])})["points"]


def choose_images(labels: np.ndarray) -> np.ndarray:
    """Return the rows of at most ``IMAGES`` images of at most ``CLASSES`` classes, ascending, balanced over classes.

    labels: (N,). Drawn at random with a fixed seed from the labels alone: the same images for every method.
    """
    classes = np.unique(labels)
    classes = classes[choose(len(classes), CLASSES, "figures/embedding/classes")]
    per_class = IMAGES // len(classes)
    chosen = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        chosen.append(members[choose(len(members), per_class, f"figures/embedding/images/{label}")])
    return np.sort(np.concatenate(chosen))


def embed(features: np.ndarray) -> np.ndarray:
    """Return t-SNE coordinates (N, 2) of features (N, D): perplexity 30, PCA initialisation, fixed seed.

    Raises ValueError for fewer than four images or two features, and for equal features.
    """
    if min(features.shape) < 2 or len(features) < 4:
        raise ValueError(f"t-SNE needs at least four images and two features, not {features.shape}")
    if (features == features[0]).all():
        raise ValueError("the features of all images are equal")
    from sklearn.manifold import TSNE  # noqa: PLC0415 - takes seconds to import

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def embedding_figure(
    title: str,
    points: dict[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    spread: dict[str, float] | None = None,
) -> Figure:
    """Draw one panel per method, with one legend of the classes.

    points: ``{method: (N, 2)}`` of the same images; labels: (N,); classes: names, by label; spread: ``{method:
    feature spread}``, the mean within-class over the mean between-class distance.
    """
    shown = np.unique(labels)
    legend_rows = -(-len(shown) // 5)
    width = max(2.9 * len(points), 6.5)
    # The constrained layout does not make room for titles above square panels, so compute the height.
    height = min(width / len(points), 3.25) + 1.1 + 0.2 * legend_rows
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (method, coordinates) in zip(panels, points.items(), strict=True):
        for number, label in enumerate(shown):
            members = coordinates[labels == label]
            style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
            size = {"s": 9, "linewidths": 0, "rasterized": True}  # as vectors, the points would be most of the page
            axes.scatter(members[:, 0], members[:, 1], label=plain(classes[label]), **size, **style)
        line = f"\nfeature spread {spread[method]:.2f}" if spread and method in spread else ""
        axes.set_title(plain(method) + line, fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.set_box_aspect(1)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False, markerscale=2)
    figure.suptitle(plain(wrapped(title, width)), fontsize=10)
    return figure
