"""A heat map of a study over a finite grid of two hyper-parameters: every point of it, measured or not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from cskd.plots import FAINT, INK, VERMILION
from experiments.runs.folder import RunFolder
from experiments.tuning.objectives import OBJECTIVES, TITLES
from experiments.tuning.space import Point, Space
from experiments.tuning.trial import COMPLETE, RUNNING, Trial

COLORS = matplotlib.colormaps["cividis_r"]  # the same to colour-blind readers, and in grey: dark is high
PANELS = ("error", "ece")
NOT_RUN, NOT_ENDED = "not run", "not ended"
MARKS = {"lowest": ("*", VERMILION, 150), "recipe": ("D", INK, 45)}  # shape, colour, size in points squared
CORNERS = {"lowest": (-0.36, 0.31), "recipe": (0.37, 0.32)}  # of a cell, from its middle


@dataclass(frozen=True)
class GridPoint:
    """One point of the grid, and its trial's outcome on the validation split after the last epoch.

    mean, std: over the trial's seeds, by objective; std with ddof=1. Both are empty unless the trial is complete,
    and std is for one seed or where the run folders are on another machine.
    """

    point: Point
    state: str  # the trial's; NOT_RUN: there is none, NOT_ENDED: it has begun
    seeds: int
    mean: dict[str, float]
    std: dict[str, float]
    is_recipe: bool  # the recipe's own setting

    def row(self) -> dict[str, Any]:
        """For a CSV file: the parameters, and what is known of them."""
        row = {**self.point, "state": self.state, "recipe": self.is_recipe, "seeds": self.seeds}
        for name in OBJECTIVES:
            row |= {f"{name}_mean": self.mean.get(name), f"{name}_std": self.std.get(name)}
        return row


def is_plane(space: Space) -> bool:
    """Whether a space is a finite grid of two hyper-parameters."""
    return space.is_finite and len(space.parameters) == 2


def grid_points(space: Space, trials: list[Trial], runs_dir: Path, recipe: Point) -> list[GridPoint]:
    """Every point of a finite space. Of several trials at a point the complete one counts, or the last."""
    found = []
    for point in space.grid():
        own = [trial for trial in trials if trial.parameters == point]
        trial = next((one for one in own if one.state == COMPLETE), own[-1] if own else None)
        state, seeds, mean, std = NOT_RUN, 0, {}, {}
        if trial is not None:
            state, seeds = NOT_ENDED if trial.state == RUNNING else trial.state, len(trial.runs)
        if state == COMPLETE:
            mean = {name: trial.metrics[metric] for name, metric in OBJECTIVES.items()}
            std = _std(trial, runs_dir)
        found.append(GridPoint(point, state, seeds, mean, std, point == recipe))
    return found


def _std(trial: Trial, runs_dir: Path) -> dict[str, float]:
    histories = [RunFolder(runs_dir / key).epochs() for key in trial.runs.values()]
    if len(histories) < 2 or not all(histories):
        return {}
    last = [history[-1]["metrics"] for history in histories]
    return {
        name: float(np.std([metrics[f"validation/{metric}"] for metrics in last], ddof=1))
        for name, metric in OBJECTIVES.items()
    }


def heat_map(title: str, space: Space, points: list[GridPoint]) -> Figure:
    """A panel of the error and one of the ECE; the first parameter up, the second to the right, ascending.

    points: those of ``grid_points``, at least one with a mean. A star marks the lowest mean of a panel, of equals the
    one with the lowest NLL; a diamond the recipe's setting. Points without a mean are hatched and say why.
    """
    up, across = space.parameters
    rows, columns = (sorted(axis.choices) for axis in space.parameters.values())
    width, height = 1.0 * len(columns) + 1.6, 0.8 * len(rows) + 1.5
    figure = Figure(figsize=(width * len(PANELS), height), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _panel(axes, name, rows, columns, points)
        axes.set_xlabel(across, fontsize=9)
        axes.set_ylabel(up, fontsize=9)
    figure.suptitle(title, fontsize=10)
    handles = [
        Line2D([], [], linestyle="none", marker=shape, color=color, markeredgecolor="white", markersize=size**0.5)
        for shape, color, size in MARKS.values()
    ]
    figure.legend(handles, ["lowest", "recipe's setting"], loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _panel(axes: Axes, name: str, rows: list[float], columns: list[float], points: list[GridPoint]) -> None:
    means = np.full((len(rows), len(columns)), np.nan)
    places = {}
    for one in points:
        row, column = (values.index(value) for values, value in zip((rows, columns), one.point.values(), strict=True))
        places[row, column] = one
        means[row, column] = one.mean.get(name, np.nan)
    scale = Normalize(np.nanmin(means), np.nanmax(means))
    image = axes.imshow(np.ma.masked_invalid(means), cmap=COLORS, norm=scale, aspect="auto", origin="lower")
    lowest = min(
        (place for place, one in places.items() if one.mean),
        key=lambda place: (places[place].mean[name], places[place].mean["nll"]),
    )
    for place, one in places.items():
        if one.mean:
            color = readable_on(COLORS(scale(one.mean[name])))
            message = f"{one.mean[name]:.1f}" + (f"\n± {one.std[name]:.1f}" if one.std else "")
            axes.text(*place[::-1], message, ha="center", va="center", fontsize=9, color=color)
        else:
            _leave_out(axes, place, one.state)
        if place == lowest:
            _mark(axes, place, "lowest")
        if one.is_recipe:
            _mark(axes, place, "recipe")
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.tick_params(length=0, labelsize=9)
    axes.set_title(TITLES[name], fontsize=9)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)


def _leave_out(axes: Axes, place: tuple[int, int], why: str) -> None:
    row, column = place
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor=FAINT, hatch="////", linewidth=0))
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(column, row, why, ha="center", va="center", fontsize=8, color=INK, bbox=behind)


def _mark(axes: Axes, place: tuple[int, int], what: str) -> None:
    shape, color, size = MARKS[what]
    x, y = CORNERS[what]
    axes.scatter(place[1] + x, place[0] + y, marker=shape, s=size, color=color, edgecolor="white", zorder=3)


def readable_on(color: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast with a colour: never below 4.5. Source: WCAG 2.1."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
