"""Figure 1 (b) of the paper: what two methods say of images that the first misclassifies."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.text import class_name, plain
from cskd.data.splits import choose
from cskd.plots import INK, method_color

TOP = 5
SHOWN = 4
LIGHT = 0.25


def choose_misclassified(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows of ``SHOWN`` misclassified images, or of all where there are fewer, ascending.

    logits: (N, C); labels: (N,). Drawn at random with a fixed seed, every misclassified image alike.
    """
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    return wrong[choose(len(wrong), SHOWN, "figures/softmax-bars")]


def softmax_bars(
    title: str,
    probabilities: dict[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    images: Sequence[np.ndarray] | None = None,
) -> Figure:
    """A row an image: itself, and a panel a method with the five most probable classes and, below, a missing true one.

    probabilities: ``{method: (M, C)}``; labels: (M,), the true classes; classes: the C names; images: M of (H, W, 3)
    uint8 RGB. Raises ValueError for no image.
    """
    if not len(labels):
        raise ValueError("no misclassified image: nothing to show")
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
            _bars(axes, of_images[row], int(label), classes, method_color(method))
            if not row:
                axes.set_title(plain(method), fontsize=10)
            axes.tick_params(labelbottom=row == rows - 1)
            if row == rows - 1:
                axes.set_xlabel("softmax probability", fontsize=8)
    handles = [Patch(facecolor=INK, edgecolor=INK), Patch(facecolor=to_rgba(INK, LIGHT), edgecolor=INK)]
    names = ["true class (sixth where it is not among the five most probable)", "another class"]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(plain(title), fontsize=9)
    return figure


def _bars(axes: Axes, probabilities: np.ndarray, label: int, classes: Sequence[str], color: str) -> None:
    """The most probable on top; equal ones by class, as argmax has it."""
    shown = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    if label not in shown:
        shown.append(label)
    values = probabilities[shown]
    places = np.arange(len(shown))
    fills = [to_rgba(color, 1 if each == label else LIGHT) for each in shown]
    axes.barh(places, values, 0.75, color=fills, edgecolor=color, linewidth=0.8)
    for place, value in zip(places, values, strict=True):
        axes.text(value + 0.02, place, f"{100 * value:.1f} %", va="center", fontsize=7, color=INK)
    axes.set_yticks(places, [class_name(classes[each]) for each in shown], fontsize=8)
    axes.get_yticklabels()[shown.index(label)].set_fontweight("bold")
    axes.set(xlim=(0, 1.2), ylim=(TOP + 0.5, -0.5))
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
