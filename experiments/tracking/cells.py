"""The parent run of a cell: its tags, and the mean, std and curves of its seeds."""

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import Metric

from cskd.evaluate.metrics import all_metrics
from cskd.plots import curves_figure, method_color
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING
from experiments.runs.plan import Cell, Plan
from experiments.tracking.records import STATUS, test_metrics

CURVES = ("top1_error", "ece")  # of the parent's figure, beside the training loss
NAME = ("dataset", "architecture", "method")


def cell_name(tags: dict[str, str]) -> str:
    return "/".join(tags[part] for part in NAME)


def cell_tags(plan: Plan, cell: Cell) -> dict[str, str]:
    return {
        "kind": "cell",
        "cell_key": cell.key,
        "grid": plan.grid,
        "profile": plan.profile,
        **dict(zip(NAME, cell.name.split("/"), strict=True)),
        "seeds_planned": " ".join(map(str, cell.runs)),
        "grid_order": str(cell.order),
        "comparable": json.dumps(cell.comparable),
        "comparable_reason": cell.comparable_reason,
        "tuned": cell.tuned,
        "hyperparameter_source": cell.hyperparameter_source,
        "superseded": "false",
    }


def seed_statistics(histories: list[list[dict[str, Any]]]) -> list[Metric]:
    """Return mean, std (ddof=1) and number of the finished seeds, each logged at the step ``number of seeds``."""
    n = len(histories)
    timestamp = int(max(history[-1]["timestamp"] for history in histories) * 1000)
    values = {"seeds": n}
    for name in test_metrics(histories[0][-1]):
        last = np.array([history[-1]["metrics"][name] for history in histories])
        values[f"{name}_mean"] = float(last.mean())
        if n > 1:
            values[f"{name}_std"] = float(last.std(ddof=1))
    return [Metric(*item, timestamp, n) for item in values.items()]


def seed_curves(cell: Cell, histories: list[list[dict[str, Any]]]) -> Figure:
    labels = {f"test/{name}": all_metrics()[name].label for name in CURVES} | {"train/loss": "Training loss"}
    curves = {
        label: np.array([[record["metrics"][name] for record in history] for history in histories])
        for name, label in labels.items()
    }
    return curves_figure(f"{cell.name}, {len(histories)} seeds", curves, method_color(cell.name.split("/")[-1]))


def cell_status(states: list[str]) -> str:
    """Return the MLflow status of a cell whose seeds have these states."""
    if all(state == DONE for state in states):
        return STATUS[DONE]
    return next((STATUS[state] for state in (RUNNING, FAILED, INTERRUPTED) if state in states), "SCHEDULED")
