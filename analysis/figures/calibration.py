"""The calibration error of methods before and after temperature scaling."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.sources import Group, NotDrawn, Note
from analysis.stats.intervals import mean_interval
from analysis.tables.files import Drawing
from cskd.evaluate.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT
from cskd.plots import FAINT, INK, method_style, plain, wrapped

# marker, fill style, and offset from the middle of a method's row
STYLES = {RAW: ("o", "full", -0.22), TRAINING_SPLIT: ("^", "none", 0.0), CROSS_FITTED: ("s", "none", 0.22)}
LABELS = {
    RAW: "unscaled",
    TRAINING_SPLIT: "temperature fitted on the training split",
    CROSS_FITTED: "cross-fitted on halves of the test set",
}


def draw(group: Group, note: Note) -> Drawing:
    ece, intervals = {}, {}
    for method, runs in group.all_evaluated(note).items():
        ece[method] = {
            scaling: np.array([run.metrics[scaling]["ece"] for run in runs if scaling in run.metrics])
            for scaling in STYLES
            if any(scaling in run.metrics for run in runs)
        }
        interval = mean_interval(ece[method][RAW], [run.replicates["ece"] for run in runs]).interval
        if np.isfinite(interval).all():
            intervals[method] = interval
    if not ece:
        raise NotDrawn("no run is evaluated")
    return Drawing(calibration_figure, group.title, ece, intervals)


def calibration_figure(
    title: str,
    ece: dict[str, dict[str, np.ndarray]],
    intervals: dict[str, tuple[float, float]],
) -> Figure:
    """Draw one row per method: the mean ECE of its seeds for each scaling, and single seeds as small dots.

    ece: ``{method: {scaling: (seeds,) in percent}}``. intervals: ``{method: (low, high)}``, 95 % intervals of the
    unscaled ECE, drawn as lines.
    """
    figure = Figure(figsize=(3.8, 2.3 + 0.5 * len(ece)), layout="constrained")
    axes = figure.subplots()
    for row, (method, scalings) in enumerate(ece.items()):
        color = method_style(method).color
        axes.axhline(row, color=FAINT, linewidth=0.5, zorder=0)
        for scaling, values in scalings.items():
            marker, fill, offset = STYLES[scaling]
            y = row + offset
            if scaling == RAW and method in intervals:
                axes.plot(intervals[method], [y, y], color=color, linewidth=1.2, zorder=1)
            if len(values) > 1:
                axes.plot(values, [y] * len(values), ".", color=color, markersize=4, alpha=0.5, zorder=2)
            style = {"marker": marker, "markersize": 7, "fillstyle": fill, "markeredgewidth": 1.4}
            axes.plot([np.mean(values)], [y], color=color, linestyle="none", zorder=3, **style)
    seeds = [max(map(len, scalings.values())) for scalings in ece.values()]
    axes.set_yticks(range(len(ece)), [f"{plain(method)} (n = {n})" for method, n in zip(ece, seeds, strict=True)])
    axes.set(ylim=(len(ece) - 0.5, -0.5), xlabel="\N{LEFTWARDS ARROW} better   ECE (%, 20 bins)")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.suptitle(plain(wrapped(f"{title}: mean of n seeds, single seeds as dots", 3.8)), fontsize=9)
    present = [scaling for scaling in STYLES if any(scaling in scalings for scalings in ece.values())]
    handles = [
        Line2D([], [], color=INK, linestyle="none", marker=marker, markersize=7, fillstyle=fill, markeredgewidth=1.4)
        for marker, fill, _ in (STYLES[scaling] for scaling in present)
    ]
    labels = [LABELS[scaling] for scaling in present]
    if intervals:
        handles.append(Line2D([], [], color=INK, linewidth=1.2))
        labels.append("95 % interval")
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False)
    return figure
