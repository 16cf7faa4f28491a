"""Figure 1 (b) of the paper: the predictions of two methods for images that the first misclassifies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.special import softmax

from analysis.figures.sources import Group, NotDrawn, Note, class_names, prepared_test_split
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.files import Drawing
from cskd.evaluate.predictions import Predictions
from cskd.plots import INK, method_style, plain, wrapped
from cskd.utils.seeding import choose

TOP_CLASSES = 5
MAX_IMAGES = 4
LIGHT_ALPHA = 0.25  # of the bars of other classes than the true one


def draw(group: Group, note: Note) -> Drawing:
    group.require(BASELINE, CS_KD)
    seed, runs, predictions = group.predictions([BASELINE, CS_KD])
    first = predictions[BASELINE]
    rows = choose_misclassified(first.logits, first.labels)
    if not len(rows):
        raise NotDrawn(f"{BASELINE} misclassifies no image")
    wrong = int((first.logits.argmax(axis=1) != first.labels).sum())
    which = f"{len(rows)} of the {wrong:,} test images that {BASELINE} misclassifies, drawn at random (fixed seed)"
    return Drawing(
        softmax_bars,
        f"{group.title}, seed {seed}\n{which}",
        {method: softmax(of_method.logits[rows].astype(float), axis=1) for method, of_method in predictions.items()},
        first.labels[rows],
        class_names(first),
        _images(group, first, rows, runs[BASELINE], note),
    )


def _images(
    group: Group, predictions: Predictions, rows: np.ndarray, run: pd.Series, note: Note
) -> list[np.ndarray] | None:
    """Return the images of these rows; None, with a note, if the dataset is not prepared here."""
    split = prepared_test_split(run.get("params.data_digest"), group.data_dir)
    if split is None or predictions.indices is None:
        note(f"without images: the dataset that {run.run} was tested on is not prepared in DATA_DIR")
        return None
    return [split.image(index) for index in predictions.indices[rows]]


def choose_misclassified(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rows of at most ``MAX_IMAGES`` misclassified images, ascending, drawn at random with a fixed seed.

    logits: (N, C); labels: (N,).
    """
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    return wrong[choose(len(wrong), MAX_IMAGES, "figures/softmax-bars")]


def softmax_bars(
    title: str,
    probabilities: dict[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    images: Sequence[np.ndarray] | None = None,
) -> Figure:
    """Draw one row per image: the image, and one panel per method with its five top classes and the true class.

    probabilities: ``{method: (M, C)}``; labels: (M,), the true classes; classes: the C names; images: M arrays
    (H, W, 3), uint8 RGB.
    """
    rows, first = len(labels), images is not None
    columns = len(probabilities) + first
    figure = Figure(figsize=(1.4 * first + 3.3 * len(probabilities), 0.9 + 1.3 * rows), layout="constrained")
    widths = [0.42] * first + [1.0] * len(probabilities)
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, label in enumerate(labels):
        if images is not None:
            grid[row, 0].imshow(images[row], interpolation="nearest")
            grid[row, 0].set_axis_off()
        for axes, (method, of_images) in zip(grid[row, first:], probabilities.items(), strict=True):
            _bars(axes, of_images[row], int(label), classes, method_style(method).color)
            if not row:
                axes.set_title(plain(method), fontsize=10)
            axes.tick_params(labelbottom=row == rows - 1)
            if row == rows - 1:
                axes.set_xlabel("softmax probability", fontsize=8)
    handles = [Patch(facecolor=INK, edgecolor=INK), Patch(facecolor=to_rgba(INK, LIGHT_ALPHA), edgecolor=INK)]
    names = ["true class (a sixth bar if it is not among the five most probable)", "another class"]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(plain(wrapped(title, figure.get_figwidth())), fontsize=9)
    return figure


def _bars(axes: Axes, probabilities: np.ndarray, label: int, classes: Sequence[str], color: str) -> None:
    """Draw one panel, the most probable class on top. Ties are in the order of the classes, as in argmax."""
    shown = np.argsort(-probabilities, kind="stable")[:TOP_CLASSES].tolist()
    if label not in shown:
        shown.append(label)
    values = probabilities[shown]
    positions = np.arange(len(shown))
    fills = [to_rgba(color, 1 if shown_label == label else LIGHT_ALPHA) for shown_label in shown]
    axes.barh(positions, values, 0.75, color=fills, edgecolor=color, linewidth=0.8)
    for position, value in zip(positions, values, strict=True):
        axes.text(value + 0.02, position, f"{100 * value:.1f} %", va="center", fontsize=7, color=INK)
    axes.set_yticks(positions, [plain(classes[shown_label]) for shown_label in shown], fontsize=8)
    axes.get_yticklabels()[shown.index(label)].set_fontweight("bold")
    axes.set(xlim=(0, 1.2), ylim=(TOP_CLASSES + 0.5, -0.5))
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
