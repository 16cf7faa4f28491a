"""How the methods of a dataset and architecture learned, epoch by epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.text import plain
from cskd.plots import FAINT, mean_curve, method_color, method_marker


def learning_curves(title: str, curves: dict[str, dict[str, np.ndarray]], drops: Sequence[int] = ()) -> Figure:
    """A panel a metric, a line a method: the mean of its seeds with a band of ± std (ddof=1); one legend.

    curves: ``{metric's label: {method: (seeds, epochs)}}``. drops: the epochs, from 0, that the learning rate is
    lower from. Raises ValueError for anything but (seeds, epochs) with one of each.
    """
    figure = Figure(figsize=(max(3.6 * len(curves), 6.5), 3.9), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    handles = {}
    for axes, (label, methods) in zip(panels, curves.items(), strict=True):
        for drop in drops:
            axes.axvline(drop - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
        for method, values in methods.items():
            if values.ndim != 2 or 0 in values.shape:
                raise ValueError(f"{label} of {method}: values (seeds, epochs) needed, not {values.shape}")
            epochs = np.arange(values.shape[1])
            name = f"{plain(method)} (n = {len(values)})"
            mean_curve(axes, epochs, values, method_color(method), name, method_marker(method))
            handles[name] = axes.lines[-1]
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{plain(title)}: mean ± std (ddof=1) over n seeds", fontsize=10)
    return figure
