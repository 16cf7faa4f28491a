"""Learning curves of the methods of a dataset and architecture."""

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.sources import Group, NotDrawn, Note
from analysis.figures.text import plain
from analysis.load.store import UnusableRun
from cskd.plots import FAINT, mean_curve, method_color, method_marker

METRICS = {
    "test/top1_error": "test error (%)",
    "test/ece": "test ECE (%)",
    "train/loss": "training loss (each method's own)",
}


def draw(group: Group, note: Note) -> Figure:
    curves: dict[str, dict[str, np.ndarray]] = {label: {} for label in METRICS.values()}
    milestones = set()
    for method in group.methods():
        histories = []
        for _, run in group.runs(method).iterrows():
            try:
                histories.append(group.store.load_history(run, list(METRICS), group.cache))
            except UnusableRun as error:
                note(str(error))
            else:
                milestones.add(run.get("params.schedule.milestones"))
        if len({len(history) for history in histories}) > 1:
            note(f"{method}: its seeds have different numbers of epochs")
        elif histories:
            for name, label in METRICS.items():
                curves[label][method] = np.stack([history[name].to_numpy() for history in histories])
    if not any(curves.values()):
        raise NotDrawn("no finished run has a history")
    [shared] = milestones if len(milestones) == 1 else [None]
    return learning_curves(group.title, curves, json.loads(shared) if isinstance(shared, str) else ())


def learning_curves(title: str, curves: dict[str, dict[str, np.ndarray]], drops: Sequence[int] = ()) -> Figure:
    """Draw one panel per metric and one line per method: the mean over seeds with a band of ± std (ddof=1).

    curves: ``{metric's label: {method: (seeds, epochs)}}``. drops: epochs, from 0, at which the learning rate drops.
    Raises ValueError for arrays of another shape.
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
