"""A forest plot: effects with their intervals and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cskd.plots import BLACK, BLUE, INK, ORANGE, PURPLE, VERMILION, plain

# One style for each outcome, in their order. Colour and marker both differ, for grey print and colour-blind readers.
STYLES = ((BLUE, "o"), (VERMILION, "X"), (INK, "D"), (ORANGE, "^"), (PURPLE, "s"), (BLACK, "v"))


@dataclass(frozen=True)
class Effect:
    """One row: an effect, the ends of its interval (NaN if unknown), and the outcome of its verdict."""

    label: str
    effect: float
    low: float
    high: float
    outcome: str


def forest_plot(title: str, xlabel: str, effects: Sequence[Effect], outcomes: Sequence[str]) -> Figure:
    """Draw one row per effect, from top to bottom, with its interval as a line.

    outcomes: all possible outcomes, at most six, so that each has the same colour and marker in every figure.
    """
    styles = dict(zip(outcomes, STYLES[: len(outcomes)], strict=True))
    figure = Figure(figsize=(7, 1.5 + 0.28 * len(effects)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for row, effect in enumerate(effects):
        color, marker = styles[effect.outcome]
        axes.plot([effect.low, effect.high], [row, row], color=color, linewidth=1.5)
        axes.plot([effect.effect], [row], color=color, marker=marker, markersize=7, linestyle="none")
    axes.set_yticks(range(len(effects)), [plain(effect.label) for effect in effects], fontsize=8)
    axes.set(ylim=(len(effects) - 0.5, -0.5), xlabel=plain(xlabel))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(plain(title), fontsize=10)
    occurring = [outcome for outcome in outcomes if any(effect.outcome == outcome for effect in effects)]
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=7, linewidth=1.5)
        for color, marker in (styles[outcome] for outcome in occurring)
    ]
    names = [plain(outcome) for outcome in occurring]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
