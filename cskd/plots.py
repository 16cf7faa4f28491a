"""Figures from arrays: reliability diagrams and mean curves. Needs matplotlib, which training does not.

Figures are built without pyplot: no global state, no display. Equal arrays give equal bytes.
"""

import textwrap
import zlib
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cskd.evaluate.scores import ReliabilityBins, expected_calibration_error, reliability_bins
from cskd.utils.files import atomic_write

PDF_FONT_TYPE = 42  # publishers require it
DIAGRAM_BINS = 10  # as in the paper's figure 5; the ECE has 20
MARKERS_PER_CURVE = 6
INK, FAINT = "#333333", "#bbbbbb"
DIAGONAL = {"linestyle": "--", "color": INK, "linewidth": 1}
RELIABILITY_LEGEND = {
    "perfect calibration": Line2D([], [], **DIAGONAL),
    "gap between accuracy and mean confidence": Patch(
        facecolor="none", edgecolor=INK, linewidth=0.8, hatch="////", hatch_linewidth=0.6
    ),
}

# The palette of Okabe and Ito 2008, which colour-blind readers can distinguish, without its yellow.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, BLACK = "#56b4e9", "#cc79a7", "#000000"
# Methods in one table of the paper differ in colour; the markers of all methods differ.
METHOD_STYLES = {
    "cross-entropy": (BLUE, "o"),
    "cs-kd": (VERMILION, "s"),
    "cs-kd-e": (BLACK, "D"),
    "adacos": (SKY, "^"),
    "virtual-softmax": (GREEN, "v"),
    "max-entropy": (PURPLE, "P"),
    "label-smoothing": (ORANGE, "X"),
    "ddgsd": (GREEN, "<"),
    "byot": (SKY, ">"),
    "mixup": (GREEN, "*"),
    "mixup+cs-kd": (PURPLE, "p"),
    "kd": (SKY, "h"),
    "kd+cs-kd": (ORANGE, "d"),
}
OTHER_COLORS = (GREEN, PURPLE, ORANGE, SKY)


def _method_style(name: str) -> tuple[str, str]:
    """Return (colour, marker) of a method. Other methods get a style that depends on their name only."""
    number = zlib.crc32(name.encode())
    markers = [marker for _, marker in METHOD_STYLES.values()]
    other = (OTHER_COLORS[number % len(OTHER_COLORS)], markers[number % len(markers)])
    return METHOD_STYLES.get(name, other)


def method_color(name: str) -> str:
    """Return a method's colour, the same in every figure."""
    return _method_style(name)[0]


def method_marker(name: str) -> str:
    """Return a method's marker, the same in every figure."""
    return _method_style(name)[1]


def reliability_diagram(
    axes: Axes, counts: Axes, bins: ReliabilityBins, *, ece: float, title: str, color: str = BLUE
) -> None:
    """Draw the accuracy of each confidence bin on ``axes``, and its number of samples on ``counts``.

    The hatched part of a bar is the gap between accuracy and mean confidence. Empty bins have no bar. ece: a fraction,
    printed in percent. Source: Guo et al., ICML 2017, figure 1; the paper's figure 5.
    """
    width = bins.upper - bins.lower
    filled = bins.count > 0
    middle = ((bins.lower + bins.upper) / 2)[filled]
    accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
    axes.bar(middle, accuracy, width[filled], color=color, edgecolor="white", linewidth=0.8)
    axes.bar(
        middle,
        np.abs(confidence - accuracy),
        width[filled] * 0.9,
        bottom=np.minimum(accuracy, confidence),
        color="none",
        edgecolor=INK,
        linewidth=0.8,
        hatch="////",
        hatch_linewidth=0.6,
    )
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    corner = f"ECE {100 * ece:.1f} %"
    axes.text(0.05, 0.94, corner, transform=axes.transAxes, va="top", fontweight="bold", color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 1), title=title)
    axes.title.set_fontsize(10)
    axes.tick_params(labelbottom=False)
    counts.bar(middle, bins.count[filled], width[filled], color=FAINT, edgecolor="white", linewidth=0.8)
    counts.set(xlim=(0, 1), xlabel="confidence")
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for panel in (axes, counts):
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xticks(np.linspace(0, 1, 6))


def reliability_panels(title: str, panels: dict[str, tuple[ReliabilityBins, float]]) -> Figure:
    """Return reliability diagrams side by side. panels: method to (bins, ECE as a fraction)."""
    figure, row = square_panels(len(panels), title, RELIABILITY_LEGEND)
    for (axes, counts), (method, (bins, ece)) in zip(row, panels.items(), strict=True):
        reliability_diagram(axes, counts, bins, ece=ece, title=method, color=method_color(method))
    return figure


def reliability_figure(logits, labels, title: str, color: str = BLUE) -> Figure:
    """Return the reliability diagram (10 bins) and ECE (20 bins) of one run: logits (N, C), labels (N,)."""
    figure, [(axes, counts)] = square_panels(1, title, RELIABILITY_LEGEND)
    bins, ece = reliability_bins(logits, labels, DIAGRAM_BINS), expected_calibration_error(logits, labels)
    reliability_diagram(axes, counts, bins, ece=ece, title=f"{len(labels):,} samples", color=color)
    return figure


def mean_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str, marker: str | None = None
) -> None:
    """Draw the mean over seeds as a line, mean +- std (ddof=1) as a band, and the seeds as faint lines.

    steps: (E,); values: (S, E). A single seed is drawn as a line only. marker: drawn at some points of the mean.
    """
    mean = values.mean(axis=0)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(steps, mean - std, mean + std, color=color, alpha=0.25, linewidth=0)
        axes.plot(steps, values.T, color=color, alpha=0.35, linewidth=0.6)
    every = max(1, len(steps) // MARKERS_PER_CURVE)
    axes.plot(steps, mean, color=color, linewidth=1.6, label=label, marker=marker, markersize=4, markevery=every)


def curves_figure(title: str, curves: dict[str, np.ndarray], color: str = BLUE) -> Figure:
    """Return one panel per metric with its mean curve over epochs, counted from 0.

    curves: the metric's label to values (seeds, epochs). Raises ValueError for empty values or another shape.
    """
    figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (label, values) in zip(panels, curves.items(), strict=True):
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"{label}: values (seeds, epochs) needed, not {values.shape}")
        mean_curve(axes, np.arange(values.shape[1]), values, color, "mean of the seeds")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    content = "mean, ± std (ddof=1) and single seeds" if values.shape[0] > 1 else "one seed"
    figure.suptitle(f"{title}: {content}", fontsize=10)
    return figure


def square_panels(
    number: int, title: str, legend: dict[str, Artist], *, per_row: int | None = None
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure and ``number`` pairs of axes: a square, and low axes of the same width below it.

    legend: text to handle, at the bottom. per_row: the maximum number of pairs in a row; None puts all in one row.
    Positions are set in inches: matplotlib's layouts keep either the squares or the common width, not both.
    """
    columns = min(number, per_row or number)
    rows = -(-number // columns)
    side, gap, left, right = 2.6, 0.4, 0.75, 0.3
    legend_rows = 1 if columns > 1 else len(legend)
    bottom = 0.6 + 0.18 * legend_rows
    width = left + columns * (side + gap) - gap + right
    title_lines = textwrap.wrap(title, int(width / 0.07), break_on_hyphens=False) or [""]  # 0.07 inches per letter
    top = 0.62 + 0.15 * (len(title_lines) - 1)
    low, space, between = 0.6, 0.15, 0.75
    row_height = low + space + side
    height = bottom + rows * row_height + (rows - 1) * between + top
    figure = Figure(figsize=(width, height))
    pairs = []
    for index in range(number):
        row, column = divmod(index, columns)
        x = (left + column * (side + gap)) / width
        y = bottom + (rows - 1 - row) * (row_height + between)
        first = pairs[0] if pairs else (None, None)
        square = (x, (y + low + space) / height, side / width, side / height)
        axes = figure.add_axes(square, sharey=first[0])
        counts = figure.add_axes((x, y / height, side / width, low / height), sharey=first[1])
        axes.tick_params(labelleft=not column)
        counts.tick_params(labelleft=not column)
        if not column:
            axes.set_ylabel("accuracy")
            counts.set_ylabel("samples")
        pairs.append((axes, counts))
    figure.suptitle("\n".join(title_lines), y=1 - 0.12 / height, fontsize=10 if columns > 1 else 9)
    columns_of_legend = len(legend) if columns > 1 else 1
    figure.legend(
        list(legend.values()), list(legend), loc="lower center", ncols=columns_of_legend, fontsize=8, frameon=False
    )
    return figure, pairs


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG (150 dpi) or a PDF, according to the suffix. Equal figures give equal bytes."""
    # None leaves an entry out: the time and matplotlib's version would make equal figures differ.
    metadata = {
        ".png": {"Software": None},
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }[path.suffix]
    with atomic_write(path, durable=False) as file, matplotlib.rc_context({"pdf.fonttype": PDF_FONT_TYPE}):
        figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata)
