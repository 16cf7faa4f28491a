"""The tuning and ablation studies that are tracked: what was chosen, from what, and their pictures."""

import json
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.load.store import Store
from cskd.utils.errors import first_line

PICTURES = ("heatmap.png", "contour.png", "pareto.png", "slices.png")  # the first that a study has is shown


@dataclass(frozen=True)
class Study:
    """One study: its settings and outcome as texts, and a picture (PNG bytes), None where there is none yet."""

    name: str
    dataset: str
    architecture: str
    method: str
    profile: str
    objective: str
    trials: str  # how many in which state
    best: dict[str, float]  # the best trial's hyper-parameters; empty before there is one
    value: float  # of the objective, there
    picture: bytes | None
    picture_name: str


def load_studies(store: Store) -> tuple[list[Study], list[str]]:
    """The studies of a store by name, and a note on each that cannot be read."""
    studies, notes = [], []
    for run in sorted(store.runs_of_kind("study"), key=lambda run: run.info.run_name):
        try:
            studies.append(_study(store, run))
        except (KeyError, ValueError, MlflowException) as error:
            notes.append(f"study {run.info.run_name} cannot be read ({first_line(error)}).")
    return studies, notes


def _study(store: Store, run: Run) -> Study:
    tags, params = run.data.tags, run.data.params
    states = {name.removeprefix("trials."): count for name, count in tags.items() if name.startswith("trials.")}
    objective = tags["objective"]
    there = {item.path for item in store.client.list_artifacts(run.info.run_id)}
    picture = next((name for name in PICTURES if name in there), "")
    return Study(
        name=tags["study"],
        dataset=params.get("dataset", ""),
        architecture=params.get("architecture", ""),
        method=params.get("method", ""),
        profile=params.get("profile", ""),
        objective=objective,
        trials=", ".join(f"{count} {state}" for state, count in states.items() if count != "0"),
        best=json.loads(tags.get("best_parameters", "{}")),
        value=run.data.metrics.get(f"best/{objective.split()[0]}", float("nan")),
        picture=store.artifact(run.info.run_id, picture) if picture else None,
        picture_name=picture,
    )
