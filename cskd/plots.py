"""Figures from arrays: reliability diagrams and mean curves. Needs matplotlib, which training does not.

Figures are built without pyplot: no global state, no display. Equal arrays give equal bytes.
"""

import textwrap
import zlib
from collections.abc import Sequence
from colorsys import hls_to_rgb
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cskd.evaluate.bins import DIAGRAM_BINS, ReliabilityBins
from cskd.utils.files import atomic_write
from cskd.utils.numbers import MEAN_STD

PDF_FONT_TYPE = 42  # publishers require it
MIN_SAMPLES = 10  # the accuracy of a bin with fewer is noise: it is drawn faded
FADED = 0.35
MARKERS_PER_CURVE = 6
INK, FAINT = "#333333", "#bbbbbb"
DIAGONAL = {"linestyle": "--", "color": INK, "linewidth": 1}
GAP = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.8, "hatch": "////", "hatch_linewidth": 0.6}
RELIABILITY_LEGEND = {
    "perfect calibration": Line2D([], [], **DIAGONAL),
    "gap between accuracy and mean confidence": Patch(**GAP),
    f"faded: fewer than {MIN_SAMPLES} samples": Patch(facecolor=INK, alpha=FADED),
}

# The palette of Okabe and Ito 2008, which colour-blind readers can distinguish, without its yellow.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, BLACK = "#56b4e9", "#cc79a7", "#000000"


class MethodStyle(NamedTuple):
    color: str
    marker: str
    line: str = "-"


# Every method has its own colour and marker. Okabe and Ito's colours come first. The others are far from these and from
# each other, and visible on white and on black; their lines differ too.
METHOD_STYLES = {
    "cross-entropy": MethodStyle(BLUE, "o"),
    "cs-kd": MethodStyle(VERMILION, "s"),
    "cs-kd-e": MethodStyle(BLACK, "D"),
    "adacos": MethodStyle(SKY, "^"),
    "virtual-softmax": MethodStyle(GREEN, "v"),
    "max-entropy": MethodStyle(PURPLE, "P"),
    "label-smoothing": MethodStyle(ORANGE, "X"),
    "ddgsd": MethodStyle("#ff77dd", "<", "--"),
    "byot": MethodStyle("#446633", ">", "-."),
    "mixup": MethodStyle("#aa2277", "*", "--"),
    "mixup+cs-kd": MethodStyle("#8877ff", "p", "-."),
    "kd": MethodStyle("#777788", "h", "--"),
    "kd+cs-kd": MethodStyle("#ff2266", "d", "-."),
    "same-image": MethodStyle("#dd11cc", "x", "--"),
    "permuted-partner": MethodStyle("#33cc66", "+", "-."),
    "class-mean": MethodStyle("#7700ff", "H", "--"),
    "pair-halves": MethodStyle("#888844", "|", "-."),
    "partner-pass": MethodStyle("#aaaa99", "1", "--"),
    "any-partner": MethodStyle("#bb1100", "8", "-."),
    "both-gradients": MethodStyle("#4466ee", "_", "--"),
}
# For methods that are added to the registry, in its order
SPARE_COLORS = ("#885555", "#cc66dd", "#885599", "#9900cc")
OTHER_MARKERS = ("2", "3", "4")


def method_style(name: str) -> MethodStyle:
    """Return a method's style, the same in every figure. Methods of the registry have different colours.

    The colour of another name, such as a new combination, is computed from the name.
    """
    if name in METHOD_STYLES:
        return METHOD_STYLES[name]
    from cskd.methods import METHODS  # noqa: PLC0415 - imports torch

    number = zlib.crc32(name.encode())
    color = to_hex(hls_to_rgb(number / 2**32, 0.5, 0.6))
    added = [method for method in METHODS if method not in METHOD_STYLES]
    if name in added[: len(SPARE_COLORS)]:
        number = added.index(name)
        color = SPARE_COLORS[number]
    return MethodStyle(color, OTHER_MARKERS[number % len(OTHER_MARKERS)], ":")


def reliability_diagram(
    axes: Axes, counts: Axes, bins: ReliabilityBins, *, ece: float, title: str, color: str = BLUE
) -> None:
    """Draw the accuracy of each confidence bin on ``axes``, and its number of samples on ``counts``.

    The hatched part of a bar is the gap between accuracy and mean confidence. Empty bins have no bar, bins of few
    samples a faded one. ece: a fraction, printed in percent. Source: Guo et al., ICML 2017, figure 1; the paper's
    figure 5.
    """
    filled = bins.count > 0
    left, right, count = bins.lower[filled], bins.upper[filled], bins.count[filled]
    accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
    alphas = np.where(count < MIN_SAMPLES, FADED, 1.0)
    colors, edges = ([to_rgba(of_bar, alpha) for alpha in alphas] for of_bar in (color, INK))
    draw_bars(axes, left, right, 0, accuracy, facecolor=colors, edgecolor="white", linewidth=0.8)
    margin = 0.05 * (right - left)
    draw_bars(axes, left + margin, right - margin, accuracy, confidence, **GAP | {"edgecolor": edges})
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{plain(title)}: ECE {100 * ece:.1f} %", fontsize=9, y=1)  # without y, its place is searched for
    axes.tick_params(labelbottom=False)
    draw_bars(counts, left, right, 0, count, facecolor=FAINT, edgecolor="white", linewidth=0.8)
    counts.set(xlim=(0, 1), xlabel="confidence")
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for panel in (axes, counts):
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xticks(np.linspace(0, 1, 6))


def draw_bars(axes: Axes, left: np.ndarray, right: np.ndarray, start, end, **style) -> None:
    """Draw bars (N,) from ``start`` to ``end`` as one artist: ``axes.bar`` makes N, which take much longer."""
    corners = [(left, start), (left, end), (right, end), (right, start)]
    vertices = np.stack([np.broadcast_arrays(*corner) for corner in corners]).transpose(2, 0, 1)
    bars = PolyCollection(vertices, joinstyle="miter", **style)
    bars.sticky_edges.y.append(0)
    axes.add_collection(bars)
    axes.autoscale(axis="y")  # matplotlib 3.10 needs it after a collection


def reliability_panels(title: str, panels: dict[str, tuple[ReliabilityBins, float]]) -> Figure:
    """Return reliability diagrams side by side. panels: method to (bins, ECE as a fraction)."""
    figure, row = square_panels(len(panels), title, RELIABILITY_LEGEND)
    for (axes, counts), (method, (bins, ece)) in zip(row, panels.items(), strict=True):
        reliability_diagram(axes, counts, bins, ece=ece, title=method, color=method_style(method).color)
    return figure


def reliability_figure(logits, labels, title: str, color: str = BLUE) -> Figure:
    """Return the reliability diagram (10 bins) and ECE (20 bins) of one run: logits (N, C), labels (N,)."""
    from cskd.evaluate.scores import expected_calibration_error, reliability_bins  # noqa: PLC0415 - imports torch

    figure, [(axes, counts)] = square_panels(1, title, RELIABILITY_LEGEND)
    bins, ece = reliability_bins(logits, labels, DIAGRAM_BINS), expected_calibration_error(logits, labels)
    reliability_diagram(axes, counts, bins, ece=ece, title=f"{len(labels):,} samples", color=color)
    return figure


def mean_curve(axes: Axes, values: np.ndarray, style: MethodStyle, label: str) -> None:
    """Draw the mean over seeds as a line, mean +- std (ddof=1) as a band, and the seeds as faint lines.

    values: (seeds, epochs). A single seed is drawn as a line only. Markers are at some points of the mean.
    """
    mean, epochs = values.mean(axis=0), np.arange(values.shape[1])
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - std, mean + std, color=style.color, alpha=0.25, linewidth=0)
        axes.plot(epochs, values.T, color=style.color, alpha=0.35, linewidth=0.6)
    axes.plot(
        epochs,
        mean,
        color=style.color,
        linestyle=style.line,
        linewidth=1.6,
        label=label,
        marker=style.marker,
        markersize=5,
        markeredgewidth=1.3,
        markevery=max(1, len(epochs) // MARKERS_PER_CURVE),
    )


def curves_figure(title: str, curves: dict[str, dict[str, np.ndarray]], drops: Sequence[int] = ()) -> Figure:
    """Return one panel per metric with one mean curve per method over the epochs, counted from 0.

    curves: ``{metric's label: {method: (seeds, epochs)}}``. drops: epochs at which the learning rate drops.
    Raises ValueError for empty values or another shape.
    """
    figure = Figure(figsize=(max(3.6 * len(curves), 6.5), 3.9), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    handles, most_seeds = {}, 0
    for axes, (label, methods) in zip(panels, curves.items(), strict=True):
        for drop in drops:
            axes.axvline(drop - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
        for method, values in methods.items():
            if values.ndim != 2 or 0 in values.shape:
                raise ValueError(f"{label} of {method}: values (seeds, epochs) needed, not {values.shape}")
            name = f"{plain(method)} (n = {len(values)})"
            mean_curve(axes, values, method_style(method), name)
            handles[name] = axes.lines[-1]
            most_seeds = max(most_seeds, len(values))
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    content = f"{MEAN_STD} over n seeds" if most_seeds > 1 else "one seed"
    figure.suptitle(plain(wrapped(f"{title}: {content}", figure.get_figwidth())), fontsize=10)
    return figure


def plain(text: str) -> str:
    r"""Return the text escaped for matplotlib, which would draw ``$x$`` as mathematics."""
    return text.replace("$", r"\$")


def wrapped(text: str, inches: float) -> str:
    """Return a title in lines that fit the width."""
    lines = (textwrap.wrap(line, int(inches / 0.075), break_on_hyphens=False) or [""] for line in text.split("\n"))
    return "\n".join(part for line in lines for part in line)


def square_panels(
    number: int, title: str, legend: dict[str, Artist], *, per_row: int | None = None, heading: float = 0.25
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure and ``number`` pairs of axes: a square, and low axes of the same width below it.

    legend: text to handle, at the bottom. per_row: the maximum number of pairs in a row; None puts all in one row.
    heading: the space above each square, in inches.
    Positions are set in inches: matplotlib's layouts keep either the squares or the common width, not both.
    """
    columns = min(number, per_row or number)
    rows = -(-number // columns)
    side, gap, left, right = 2.6, 0.4, 0.75, 0.3
    legend_rows = 1 if columns > 1 else len(legend)
    bottom = 0.6 + 0.18 * legend_rows
    width = left + columns * (side + gap) - gap + right
    lines = wrapped(title, width)
    top = 0.37 + heading + 0.15 * lines.count("\n")
    low, space, between = 0.6, 0.15, 0.5 + heading
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
    figure.suptitle(lines, y=1 - 0.12 / height, fontsize=10 if columns > 1 else 9)
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
