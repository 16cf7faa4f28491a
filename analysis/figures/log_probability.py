"""Figure 2 of the paper: log-probabilities of the predicted and of the true label on misclassified images."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.sources import Group, NotDrawn, Note
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.files import Drawing
from cskd.plots import method_style, plain, wrapped

BINS = 40
STYLES = (("-", None), ("--", "////"), (":", "...."), ("-.", "\\\\\\\\"))  # outline and hatch, for print without colour


def draw(group: Group, note: Note) -> Drawing:
    group.require(BASELINE, CS_KD)
    evaluated = {method: group.evaluated(method) for method in (BASELINE, CS_KD)}
    predicted, true = (
        {method: np.concatenate([getattr(run, name) for run in runs]) for method, runs in evaluated.items()}
        for name in ("predicted_log_probability", "true_log_probability")
    )
    for method, values in predicted.items():
        if not len(values):
            raise NotDrawn(f"{method} misclassifies no image")
    title = f"{group.title}: misclassified test images, {group.evaluated_seeds(evaluated)}"
    return Drawing(log_probability_figure, title, predicted, true)


def log_probability_figure(title: str, predicted: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> Figure:
    """Draw histograms of the log-probability (nats) of misclassified images, each with area 1.

    predicted, true: ``{method: (M,)}``; M is at least 1 and may differ between methods.
    """
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _histograms(left, predicted)
    left.set_title("(a) predicted label", fontsize=10)
    _histograms(right, true)
    right.set_title("(b) true label", fontsize=10)
    left.set_ylabel("density")
    figure.suptitle(plain(wrapped(title, 7.6)), fontsize=10)
    return figure


def _histograms(axes: Axes, values: dict[str, np.ndarray]) -> None:
    lowest = min(float(sample.min()) for sample in values.values())
    edges = np.linspace(min(lowest, -1.0), 0, BINS + 1)
    densities = {method: np.histogram(sample, edges, density=True)[0] for method, sample in values.items()}
    peak = max(density.max() for density in densities.values())
    for (method, sample), (line, hatch) in zip(values.items(), itertools.cycle(STYLES), strict=False):
        density = densities[method]
        color = method_style(method).color
        axes.stairs(density, edges, fill=True, facecolor=color, edgecolor=color, alpha=0.25, linewidth=0, hatch=hatch)
        median = float(np.median(sample))
        text = f"{median:.2f}".replace("-", "\N{MINUS SIGN}")
        label = f"{plain(method)}: median {text}, n = {len(sample):,}"
        axes.stairs(density, edges, color=color, linewidth=1.5, linestyle=line, label=label)
        axes.vlines(median, 0, 1.05 * peak, color=color, linewidth=1.2, linestyle=line)
    axes.set(xlim=(edges[0], 0), ylim=(0, 1.4 * peak), xlabel="log-probability (nats)")  # room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
