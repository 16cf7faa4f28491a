"""Pictures of a study, drawn by Optuna on matplotlib."""

import warnings
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")  # Optuna draws with pyplot, which would look for a screen

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

from cskd.plots import INK, VERMILION
from experiments.tuning.objectives import TITLES
from experiments.tuning.space import Point
from experiments.tuning.storage import open_storage

ENOUGH = 4  # complete trials for a contour, slices or importances to mean anything


def study_figures(address: str, name: str, recipe_point: Point, *, contour: bool = True) -> dict[str, Figure]:
    """The figures of a study by name: history, slices, importance and contour; of two objectives the Pareto front.

    recipe_point: the recipe's own setting, marked in the contour. contour: False where it means nothing, between
    the points of a grid. Too few trials make fewer figures.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(address))
    objectives = study.user_attrs["objectives"]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return {}
    if len(objectives) > 1:
        titles = [TITLES[objective] for objective in objectives]
        return {"pareto": _figure(lambda: drawn.plot_pareto_front(study, target_names=titles), name)}
    title = TITLES[objectives[0]]
    figures = {"history": _figure(lambda: drawn.plot_optimization_history(study, target_name=title), name)}
    several = [key for key in complete[0].params if len({trial.params[key] for trial in complete}) > 1]
    if len(complete) >= ENOUGH and several:
        figures["slices"] = _figure(lambda: drawn.plot_slice(study, params=several, target_name=title), name)
        if len(several) > 1:
            figures["importance"] = _figure(lambda: drawn.plot_param_importances(study, target_name=title), name)
            if contour:
                figures["contour"] = _figure(
                    lambda: _contour(study, several, title, study.best_trial.params, recipe_point), name
                )
    return figures


def _contour(study: optuna.Study, params: list[str], title: str, best: Point, recipe: Point) -> Axes | np.ndarray:
    axes = drawn.plot_contour(study, params=params, target_name=title)
    if isinstance(axes, Axes):  # of more than two hyper-parameters it is a matrix of panels
        x, y = axes.get_xlabel(), axes.get_ylabel()
        axes.scatter(best[x], best[y], marker="*", s=220, color=VERMILION, edgecolor="white", zorder=9, label="best")
        axes.scatter(recipe[x], recipe[y], marker="D", s=60, color=INK, edgecolor="white", zorder=8, label="recipe")
        axes.legend(loc="lower right", fontsize=8)
    return axes


def _plain_numbers(axis: Axis) -> None:
    """0.5, 1, 2 in the place of powers of ten, which overlap on a range as short as these."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _figure(draw: Callable[[], Axes | np.ndarray], title: str) -> Figure:
    """What Optuna draws, in a style that does not leak into other figures."""
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ExperimentalWarning, and empty legends
        axes = draw()
        first = axes if isinstance(axes, Axes) else np.ravel(axes)[0]
        figure = first.figure
        for one in figure.axes:
            for axis in (one.xaxis, one.yaxis):
                if axis.get_scale() == "log":
                    _plain_numbers(axis)
        if isinstance(axes, Axes):
            axes.set_title("", loc="left")  # where Optuna puts titles of its own
            axes.set_title(title, fontsize=11)
            figure.set_layout_engine("tight")
        else:
            figure.suptitle(title, fontsize=11)
        plt.close(figure)  # out of pyplot's list; the figure itself stays
    return figure
