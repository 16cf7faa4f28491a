"""Figure 5 of the paper: the reliability diagram of each method beside CS-KD's."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.sources import Group, NotDrawn, Note
from analysis.paper.published import CS_KD
from analysis.tables.files import Drawing
from analysis.tables.reliability import coarser, pooled
from cskd.evaluate.bins import DIAGRAM_BINS, ReliabilityBins
from cskd.evaluate.evaluation import RAW
from cskd.plots import DIAGONAL, FADED, INK, MIN_SAMPLES, method_style, plain, square_panels

PER_ROW = 4


def draw(group: Group, note: Note) -> Drawing:
    group.require(CS_KD)
    evaluated = {CS_KD: group.evaluated(CS_KD)} | group.all_evaluated(note)
    if len(evaluated) == 1:
        raise NotDrawn(f"no method to compare with {CS_KD}")
    reliability = {
        method: (
            coarser(pooled(run.bins for run in runs), DIAGRAM_BINS),
            float(np.mean([run.metrics[RAW]["ece"] for run in runs])) / 100,
        )
        for method, runs in evaluated.items()
    }
    return Drawing(reliability_pairs, f"{group.title}, {group.evaluated_seeds(evaluated)}", CS_KD, reliability)


def reliability_pairs(title: str, ours: str, reliability: dict[str, tuple[ReliabilityBins, float]]) -> Figure:
    """Draw accuracy against mean confidence, bin by bin: a panel compares ``ours`` with one other method.

    reliability: ``{method: (bins, ece as a fraction)}``, over the same bins. Below are each bin's samples in percent of
    all samples of the method. The line skips bins of fewer than ten samples, whose accuracy is noise.
    """
    others = [method for method in reliability if method != ours]
    legend = {
        "perfect calibration": Line2D([], [], **DIAGONAL),
        f"bin of fewer than {MIN_SAMPLES} samples": Line2D(
            [], [], color=INK, marker="o", linestyle="none", alpha=FADED
        ),
    }
    figure, panels = square_panels(len(others), plain(title), legend, per_row=PER_ROW, heading=0.45)
    for (axes, counts), other in zip(panels, others, strict=True):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        for side, method in enumerate((other, ours)):
            bins, ece = reliability[method]
            color, marker, line = method_style(method)
            style = {
                "color": color,
                "marker": marker,
                "linestyle": line,
                "markersize": 5,
                "markerfacecolor": "white" if side else color,
                "linewidth": 1.5,
                "clip_on": False,
            }
            enough, few = bins.count >= MIN_SAMPLES, (bins.count > 0) & (bins.count < MIN_SAMPLES)
            label = f"{plain(method)}: ECE {100 * ece:.1f} %"
            axes.plot(bins.confidence[enough], bins.accuracy[enough], label=label, **style)
            axes.plot(bins.confidence[few], bins.accuracy[few], **style | {"linestyle": "none", "alpha": FADED})
            share = 100 * bins.count / bins.count.sum()
            width = (bins.upper - bins.lower) / 2
            hatch = {"hatch": "//////", "facecolor": "white"} if side else {"facecolor": color}
            counts.bar(bins.lower + width * (side + 0.5), share, width, edgecolor=color, linewidth=0.6, **hatch)
        if counts.get_ylabel():
            counts.set_ylabel("samples (%)", fontsize=8)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.tick_params(labelbottom=False)
        place = {
            "loc": "lower left",
            "bbox_to_anchor": (0, 1),
            "borderaxespad": 0.2,
        }  # above, so that it hides no point
        axes.legend(fontsize=8, frameon=False, handlelength=1.8, borderpad=0.1, **place)
        counts.set(xlim=(0, 1), xlabel="confidence")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        for panel in (axes, counts):
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xticks(np.linspace(0, 1, 6))
    return figure
