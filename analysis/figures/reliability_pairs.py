"""Figure 5 of the paper: the reliability of each method beside that of one."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.text import plain
from cskd.evaluate.scores import ReliabilityBins
from cskd.plots import DIAGONAL, INK, method_color, method_marker, square_panels

PER_ROW = 4
ENOUGH = 10  # samples of a bin


def reliability_pairs(title: str, ours: str, reliability: dict[str, tuple[ReliabilityBins, float]]) -> Figure:
    """Accuracy against mean confidence, bin by bin, of ``ours`` and one other method a panel.

    reliability: ``{method: (bins, ece as a fraction)}``, that of ``ours`` and of another at least, over the same bins.
    Below are each bin's samples in percent of the method's own, whose seeds may be more or fewer than the other's.
    A bin without samples has no point; the line passes over bins of fewer than ten, whose accuracy is chance.
    Raises ValueError for nothing to set beside ``ours``.
    """
    others = [method for method in reliability if method != ours]
    if not others:
        raise ValueError(f"no method to set beside {ours}")
    legend = {
        "perfect calibration": Line2D([], [], **DIAGONAL),
        f"bin of fewer than {ENOUGH} samples": Line2D([], [], color=INK, marker="o", linestyle="none", alpha=0.5),
    }
    figure, panels = square_panels(len(others), plain(title), legend, per_row=PER_ROW)
    for (axes, counts), other in zip(panels, others, strict=True):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        for side, method in enumerate((other, ours)):
            bins, ece = reliability[method]
            color = method_color(method)
            style = {
                "color": color,
                "marker": method_marker(method),
                "markersize": 5,
                "markerfacecolor": "white" if side else color,
                "linewidth": 1.5,
                "clip_on": False,
            }
            enough, few = bins.count >= ENOUGH, (bins.count > 0) & (bins.count < ENOUGH)
            label = f"{plain(method)}: ECE {100 * ece:.1f} %"
            axes.plot(bins.confidence[enough], bins.accuracy[enough], label=label, **style)
            axes.plot(bins.confidence[few], bins.accuracy[few], **style | {"linestyle": "none", "alpha": 0.5})
            share = 100 * bins.count / bins.count.sum()
            width = (bins.upper - bins.lower) / 2
            hatch = {"hatch": "//////", "facecolor": "white"} if side else {"facecolor": color}
            counts.bar(bins.lower + width * (side + 0.5), share, width, edgecolor=color, linewidth=0.6, **hatch)
        if counts.get_ylabel():
            counts.set_ylabel("samples (%)", fontsize=8)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(plain(other), fontsize=10)
        axes.tick_params(labelbottom=False)
        axes.legend(loc="lower right", fontsize=8, frameon=False, handlelength=1.6, borderpad=0.1)
        counts.set(xlim=(0, 1), xlabel="confidence")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        for each in (axes, counts):
            each.spines[["top", "right"]].set_visible(False)
            each.set_xticks(np.linspace(0, 1, 6))
    return figure
