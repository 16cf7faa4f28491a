"""Figure 2 of the paper: how sure methods are of wrong answers, and how far they are from the right ones."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.text import plain
from cskd.plots import method_color

BINS = 40
STYLES = (("-", None), ("--", "////"), (":", "...."), ("-.", "\\\\\\\\"))  # outline and hatch, for grey print


def log_probability_figure(title: str, predicted: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> Figure:
    """Histograms of misclassified images' log-probability (nats): of the predicted label, and of the true one.

    predicted, true: ``{method: (M,)}``, M of each method's own. All values are in the bins, which the methods share;
    each histogram has area 1. Raises ValueError for a method without a misclassified image.
    """
    for method, values in (predicted | true).items():
        if not len(values):
            raise ValueError(f"{method} misclassifies no image: it has no histogram")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _histograms(left, predicted)
    left.set_title("(a) predicted label", fontsize=10)
    _histograms(right, true)
    right.set_title("(b) true label", fontsize=10)
    left.set_ylabel("density")
    figure.suptitle(plain(title), fontsize=10)
    return figure


def _histograms(axes: Axes, values: dict[str, np.ndarray]) -> None:
    lowest = min(float(each.min()) for each in values.values())
    edges = np.linspace(min(lowest, -1.0), 0, BINS + 1)
    densities = {method: np.histogram(each, edges, density=True)[0] for method, each in values.items()}
    peak = max(density.max() for density in densities.values())
    for (method, each), (line, hatch) in zip(values.items(), itertools.cycle(STYLES), strict=False):
        density = densities[method]
        color = method_color(method)
        axes.stairs(density, edges, fill=True, facecolor=color, edgecolor=color, alpha=0.25, linewidth=0, hatch=hatch)
        median = float(np.median(each))
        message = f"{median:.2f}".replace("-", "\N{MINUS SIGN}")
        label = f"{plain(method)}: median {message}, n = {len(each):,}"
        axes.stairs(density, edges, color=color, linewidth=1.5, linestyle=line, label=label)
        axes.vlines(median, 0, 1.05 * peak, color=color, linewidth=1.2, linestyle=line)
    axes.set(xlim=(edges[0], 0), ylim=(0, 1.4 * peak), xlabel="log-probability (nats)")  # room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
