"""Differences of several methods from a few controls, with their intervals: one panel per metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.stats.multiplicity import Simultaneous
from cskd.plots import FAINT, INK, method_style, plain


@dataclass(frozen=True)
class Panel:
    """One metric: its label, the equivalence margin, and {control: {method: difference}}."""

    label: str
    margin: float | None
    differences: Mapping[str, Mapping[str, Simultaneous]]


def controls_figure(title: str, methods: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """Draw one row per method from top to bottom, with a dot and an interval for each control.

    A grey band shows the differences within the margin.
    """
    controls = list(dict.fromkeys(control for panel in panels for control in panel.differences))
    figure = Figure(figsize=(2.6 + 2.6 * len(panels), 1.7 + 0.36 * len(methods)), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        if panel.margin is not None:
            axes.axvspan(-panel.margin, panel.margin, color=FAINT, alpha=0.4, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        for number, control in enumerate(controls):
            style = method_style(control)
            for row, method in enumerate(methods):
                if one := panel.differences.get(control, {}).get(method):
                    height = row + 0.3 * (number - (len(controls) - 1) / 2)
                    axes.plot(one.interval, [height, height], color=style.color, linewidth=1.5)
                    axes.plot([one.effect], [height], color=style.color, marker=style.marker, markersize=6)
        axes.set(ylim=(len(methods) - 0.5, -0.5), xlabel=plain(panel.label))
        axes.set_yticks(range(len(methods)), list(map(plain, methods)), fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    handles = {f"minus {plain(control)}": _marker(control) for control in controls}
    handles["within the margin"] = Patch(color=FAINT, alpha=0.4, linewidth=0)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(plain(title), fontsize=10)
    return figure


def _marker(control: str) -> Line2D:
    style = method_style(control)
    return Line2D([], [], color=style.color, marker=style.marker, markersize=6, linewidth=1.5)
