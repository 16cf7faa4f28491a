"""Figures of a study: Optuna's own, and a heat map of a finite grid of two hyper-parameters."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # Optuna uses pyplot, which would open a window system

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from optuna.trial import TrialState
from optuna.visualization import matplotlib as optuna_plots

from cskd.plots import INK, VERMILION
from cskd.utils.numbers import TWO_LINES, mean_std_text
from experiments.runs.folder import RunFolder
from experiments.tuning.space import Point, Space
from experiments.tuning.storage import open_storage
from experiments.tuning.trial import COMPLETE, OBJECTIVES, TIE_BREAKER, Trial

MIN_TRIALS_FOR_SLICES = 4  # complete trials; also for importances and the contour
HEAT_MAP_COLORS = matplotlib.colormaps["cividis_r"]  # safe for colour-blind readers and in grey: dark is high
CONTRAST_CHANGE = 0.525  # black text has more contrast below, white text above; both at least 4.4 : 1
HEAT_MAP_PANELS = ("error", "ece")
NOT_RUN = "not run"

Row = dict[str, Any]


def grid_rows(space: Space, trials: list[Trial], runs_dir: Path, recipe: Point) -> list[Row]:
    """Return a row for every point of a finite space: hyper-parameters, state, and mean and std of each objective.

    A point with several trials has the complete one, or the last. The means over the seeds are None unless it is
    complete. The stds (ddof=1) are also None for one seed, and for run folders on another machine.
    """
    return [_grid_row(point, trials, runs_dir, recipe) for point in space.grid()]


def _grid_row(point: Point, trials: list[Trial], runs_dir: Path, recipe: Point) -> Row:
    of_point = [trial for trial in trials if trial.parameters == point]
    trial = max(of_point, key=lambda trial: (trial.state == COMPLETE, trial.number), default=Trial(-1, NOT_RUN, point))
    row = {**point, "state": trial.state, "recipe": point == recipe, "seeds": len(trial.runs)}
    histories = [RunFolder(runs_dir / key).epochs() for key in trial.runs.values()] if trial.metrics else []
    for name, metric in OBJECTIVES.items():
        row[f"{name}_mean"], row[f"{name}_std"] = trial.metrics.get(metric.name), None
        if len(histories) > 1 and all(histories):
            values = [history[-1]["metrics"][f"validation/{metric.name}"] for history in histories]
            row[f"{name}_std"] = float(np.std(values, ddof=1))
    return row


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


def heat_map(title: str, space: Space, rows: list[Row]) -> Figure:
    """Return a figure with a panel for the error and one for the ECE, the first hyper-parameter on the vertical axis.

    rows: from ``grid_rows``, at least one of them with a mean. A cell without a mean shows its state. The words
    "lowest" and "recipe" mark a panel's lowest mean and the recipe's setting.
    """
    height, width = (len(axis.choices) for axis in space.parameters.values())
    figure = Figure(figsize=((width + 1.6) * len(HEAT_MAP_PANELS), 0.8 * height + 1.2), layout="constrained")
    for axes, objective in zip(figure.subplots(1, len(HEAT_MAP_PANELS)), HEAT_MAP_PANELS, strict=True):
        _draw_panel(axes, objective, space, rows)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_panel(axes: Axes, objective: str, space: Space, rows: list[Row]) -> None:
    vertical, horizontal = ((name, sorted(axis.choices)) for name, axis in space.parameters.items())
    mean, std = f"{objective}_mean", f"{objective}_std"
    measured = [row for row in rows if row[mean] is not None]
    lowest = min(measured, key=lambda row: (row[mean], row[f"{TIE_BREAKER}_mean"]))
    scale = Normalize(lowest[mean], max(row[mean] for row in measured))
    means = np.full((len(vertical[1]), len(horizontal[1])), np.nan)
    for row in rows:
        y, x = (values.index(row[name]) for name, values in (vertical, horizontal))
        lines, color = [row["state"]], INK
        if row[mean] is not None:
            means[y, x] = row[mean]
            color = "black" if scale(row[mean]) < CONTRAST_CHANGE else "white"
            spread = np.nan if row[std] is None else row[std]
            lines = [mean_std_text(row[mean], spread, OBJECTIVES[objective].decimals, separator=TWO_LINES)]
        lines += ["lowest"] * (row is lowest) + ["recipe"] * row["recipe"]
        axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=8, color=color)
    image = axes.imshow(np.ma.masked_invalid(means), cmap=HEAT_MAP_COLORS, norm=scale, aspect="auto", origin="lower")
    axes.set_xticks(range(len(horizontal[1])), [f"{value:g}" for value in horizontal[1]])
    axes.set_yticks(range(len(vertical[1])), [f"{value:g}" for value in vertical[1]])
    axes.tick_params(length=0, labelsize=9)
    axes.set_xlabel(horizontal[0], fontsize=9)
    axes.set_ylabel(vertical[0], fontsize=9)
    axes.set_title(_label(objective), fontsize=9)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)
