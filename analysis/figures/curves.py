"""Learning curves of the methods of a dataset and architecture."""

import json

import numpy as np

from analysis.figures.sources import Group, NotDrawn, Note
from analysis.load.store import UnusableRun
from analysis.tables.files import Drawing
from cskd.plots import curves_figure

METRICS = {
    "test/top1_error": "test error (%)",
    "test/ece": "test ECE (%)",
    "train/loss": "training loss (each method's own)",
}


def draw(group: Group, note: Note) -> Drawing:
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
    return Drawing(curves_figure, group.title, curves, json.loads(shared) if isinstance(shared, str) else ())
