"""Figures of a study: Optuna's own, and a heat map of a finite grid of two hyper-parameters."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Optuna uses pyplot, which would open a window system

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from optuna.trial import TrialState
from optuna.visualization import matplotlib as optuna_plots

from cskd.plots import FAINT, INK, VERMILION
from cskd.utils.numbers import TWO_LINES, mean_std_text
from experiments.runs.folder import RunFolder
from experiments.tuning.space import Point, Space
from experiments.tuning.storage import open_storage
from experiments.tuning.trial import COMPLETE, OBJECTIVES, RUNNING, TIE_BREAKER, Trial

MIN_TRIALS_FOR_SLICES = 4  # complete trials; also for importances and the contour
HEAT_MAP_COLORS = matplotlib.colormaps["cividis_r"]  # safe for colour-blind readers and in grey: dark is high
CONTRAST_CHANGE = 0.525  # black text has more contrast below, white text above; both at least 4.4 : 1
HEAT_MAP_PANELS = ("error", "ece")
MARKERS = {"lowest": ("*", VERMILION, 150), "recipe": ("D", INK, 45)}  # shape, colour, size in points squared
MARKER_OFFSETS = {"lowest": (-0.36, 0.31), "recipe": (0.37, 0.32)}  # from a cell's centre

NOT_RUN, NOT_ENDED = "not run", "not ended"


@dataclass(frozen=True)
class GridPoint:
    """One point of a finite space with the result of its trial on the validation split.

    state: the trial's, NOT_RUN or NOT_ENDED.
    mean, std (ddof=1): over the seeds, by objective. Both are empty unless the trial is complete. std is also empty for
        one seed, and for run folders on another machine.
    """

    parameters: Point
    state: str
    is_recipe: bool
    seeds: int = 0
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)


def grid_points(space: Space, trials: list[Trial], runs_dir: Path, recipe: Point) -> list[GridPoint]:
    """Return every point of a finite space. A point with several trials has the complete one, or the last."""
    points = []
    for parameters in space.grid():
        is_recipe = parameters == recipe
        of_point = sorted(
            (trial for trial in trials if trial.parameters == parameters), key=lambda t: t.state == COMPLETE
        )
        if not of_point:
            points.append(GridPoint(parameters, NOT_RUN, is_recipe))
            continue
        trial = of_point[-1]
        state, mean, std = NOT_ENDED if trial.state == RUNNING else trial.state, {}, {}
        if state == COMPLETE:
            mean = {name: trial.metrics[metric.name] for name, metric in OBJECTIVES.items()}
            std = _std(trial, runs_dir)
        points.append(GridPoint(parameters, state, is_recipe, len(trial.runs), mean, std))
    return points


def _std(trial: Trial, runs_dir: Path) -> dict[str, float]:
    histories = [RunFolder(runs_dir / key).epochs() for key in trial.runs.values()]
    if len(histories) < 2 or not all(histories):
        return {}
    last = [history[-1]["metrics"] for history in histories]
    return {
        name: float(np.std([metrics[f"validation/{metric.name}"] for metrics in last], ddof=1))
        for name, metric in OBJECTIVES.items()
    }


def _label(objective: str) -> str:
    return f"validation {OBJECTIVES[objective].label}"


def study_figures(address: str, name: str, recipe_point: Point, *, contour: bool = True) -> dict[str, Figure]:
    """Return a study's figures by name: history, slices, importance, contour; or the Pareto front of two objectives.

    recipe_point: the recipe's setting, marked in the contour. contour: False for a grid, which has no values between
    its points. Figures that need more trials are left out.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(address))
    objectives = study.user_attrs["objectives"]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return {}
    if len(objectives) > 1:
        labels = [_label(objective) for objective in objectives]
        return {"pareto": _figure(lambda: optuna_plots.plot_pareto_front(study, target_names=labels), name)}
    label = _label(objectives[0])
    figures = {"history": _figure(lambda: optuna_plots.plot_optimization_history(study, target_name=label), name)}
    varied = [key for key in complete[0].params if len({trial.params[key] for trial in complete}) > 1]
    if len(complete) < MIN_TRIALS_FOR_SLICES or not varied:
        return figures
    figures["slices"] = _figure(lambda: optuna_plots.plot_slice(study, params=varied, target_name=label), name)
    if len(varied) > 1:
        figures["importance"] = _figure(lambda: optuna_plots.plot_param_importances(study, target_name=label), name)
    if len(varied) > 1 and contour:
        best = study.best_trial.params
        figures["contour"] = _figure(lambda: _contour(study, varied, label, best, recipe_point), name)
    return figures


def _contour(study: optuna.Study, names: list[str], label: str, best: Point, recipe: Point) -> Axes | np.ndarray:
    axes = optuna_plots.plot_contour(study, params=names, target_name=label)
    if isinstance(axes, Axes):  # more than two hyper-parameters give a matrix of axes
        x, y = axes.get_xlabel(), axes.get_ylabel()
        axes.scatter(best[x], best[y], marker="*", s=220, color=VERMILION, edgecolor="white", zorder=9, label="best")
        axes.scatter(recipe[x], recipe[y], marker="D", s=60, color=INK, edgecolor="white", zorder=8, label="recipe")
        axes.legend(loc="lower right", fontsize=8)
    return axes


def _figure(draw: Callable[[], Axes | np.ndarray], title: str) -> Figure:
    """Return the figure of an Optuna plot, without side effects on the style of other figures."""
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ExperimentalWarning, and empty legends
        axes = draw()
        figure = np.ravel(axes)[0].figure
        for panel in figure.axes:
            for axis in (panel.xaxis, panel.yaxis):
                if axis.get_scale() == "log":
                    _label_plain_numbers(axis)
        if isinstance(axes, Axes):
            axes.set_title("", loc="left")  # Optuna's title
            axes.set_title(title, fontsize=11)
            figure.set_layout_engine("tight")
        else:
            figure.suptitle(title, fontsize=11)
        plt.close(figure)  # removes it from pyplot's list only
    return figure


def _label_plain_numbers(axis: Axis) -> None:
    """Label 0.5, 1, 2 instead of powers of ten, which overlap on short ranges."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def heat_map(title: str, space: Space, points: list[GridPoint]) -> Figure:
    """Return a figure with a panel for the error and one for the ECE, the first hyper-parameter on the vertical axis.

    points: from ``grid_points``, at least one of them with a mean. A star marks the lowest mean of a panel, a diamond
    the recipe's setting. Points without a mean are hatched and show their state.
    """
    vertical, horizontal = space.parameters
    rows, columns = (sorted(axis.choices) for axis in space.parameters.values())
    width, height = 1.0 * len(columns) + 1.6, 0.8 * len(rows) + 1.5
    figure = Figure(figsize=(width * len(HEAT_MAP_PANELS), height), layout="constrained")
    for axes, objective in zip(figure.subplots(1, len(HEAT_MAP_PANELS)), HEAT_MAP_PANELS, strict=True):
        _draw_panel(axes, objective, rows, columns, points)
        axes.set_xlabel(horizontal, fontsize=9)
        axes.set_ylabel(vertical, fontsize=9)
    figure.suptitle(title, fontsize=10)
    handles = [
        Line2D([], [], linestyle="none", marker=shape, color=color, markeredgecolor="white", markersize=size**0.5)
        for shape, color, size in MARKERS.values()
    ]
    figure.legend(handles, ["lowest", "recipe's setting"], loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _draw_panel(axes: Axes, objective: str, rows: list[float], columns: list[float], points: list[GridPoint]) -> None:
    cells = {}
    for point in points:
        vertical, horizontal = point.parameters.values()
        cells[rows.index(vertical), columns.index(horizontal)] = point
    means = np.full((len(rows), len(columns)), np.nan)
    for cell, point in cells.items():
        means[cell] = point.mean.get(objective, np.nan)
    scale = Normalize(np.nanmin(means), np.nanmax(means))
    image = axes.imshow(np.ma.masked_invalid(means), cmap=HEAT_MAP_COLORS, norm=scale, aspect="auto", origin="lower")
    measured = [point for point in points if point.mean]
    lowest = min(measured, key=lambda point: (point.mean[objective], point.mean[TIE_BREAKER]))
    decimals = OBJECTIVES[objective].decimals
    for (row, column), point in cells.items():
        if point.mean:
            color = "black" if scale(point.mean[objective]) < CONTRAST_CHANGE else "white"
            std = point.std.get(objective, np.nan)
            text = mean_std_text(point.mean[objective], std, decimals, separator=TWO_LINES)
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
        else:
            _draw_missing(axes, row, column, point.state)
        for name, is_marked in (("lowest", point is lowest), ("recipe", point.is_recipe)):
            if is_marked:
                shape, color, size = MARKERS[name]
                x, y = MARKER_OFFSETS[name]
                axes.scatter(column + x, row + y, marker=shape, s=size, color=color, edgecolor="white", zorder=3)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.tick_params(length=0, labelsize=9)
    axes.set_title(_label(objective), fontsize=9)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)


def _draw_missing(axes: Axes, row: int, column: int, state: str) -> None:
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor=FAINT, hatch="////", linewidth=0))
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(column, row, state, ha="center", va="center", fontsize=8, color=INK, bbox=background)
