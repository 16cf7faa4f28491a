"""Tracked tuning and ablation studies."""

import json
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.load.store import Store
from cskd.utils.errors import first_line

PICTURES = ("heatmap.png", "contour.png", "pareto.png", "slices.png")  # the first available one is shown


@dataclass(frozen=True)
class Study:
    """The settings and the outcome of one study.

    trials: the number of trials by state. best: the hyper-parameters of the best trial, empty if there is none yet.
    value: the best trial's objective. picture: PNG bytes, or None.
    """

    name: str
    dataset: str
    architecture: str
    method: str
    profile: str
    objective: str
    trials: dict[str, int]
    best: dict[str, float]
    value: float
    picture: bytes | None
    picture_name: str


def load_studies(store: Store) -> tuple[list[Study], list[str]]:
    """Return the studies of a store, sorted by name, and a note for each study that cannot be read."""
    studies, notes = [], []
    for run in sorted(store.runs_of_kind("study"), key=lambda run: run.info.run_name):
        try:
            studies.append(_study(store, run))
        except (KeyError, ValueError, MlflowException) as error:
            notes.append(f"study {run.info.run_name} cannot be read ({first_line(error)}).")
    return studies, notes


def _study(store: Store, run: Run) -> Study:
    tags, params = run.data.tags, run.data.params
    objective = tags["objective"]
    pictures = ((name, store.artifact(run, name)) for name in PICTURES)
    name, picture = next((pair for pair in pictures if pair[1] is not None), ("", None))
    return Study(
        name=tags["study"],
        **{name: params.get(name, "") for name in ("dataset", "architecture", "method", "profile")},
        objective=objective,
        trials={name.removeprefix("trials."): int(n) for name, n in tags.items() if name.startswith("trials.")},
        best=json.loads(tags.get("best_parameters", "{}")),
        value=json.loads(tags.get("best_metrics", "{}")).get(objective.split()[0], float("nan")),
        picture=picture,
        picture_name=name,
    )
