"""The parent run of a cell: its tags, and the mean, std and curves of its seeds."""

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cskd.evaluate.metrics import all_metrics
from cskd.plots import curves_figure
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING
from experiments.runs.stored_plan import Cell, Plan
from experiments.tracking.experiment import STATUS
from experiments.tracking.records import test_metrics

CURVES = ("top1_error", "ece")  # shown beside the training loss
NAME = ("dataset", "architecture", "method")


def cell_name(tags: dict[str, str]) -> str:
    return "/".join(tags.get(part, "") for part in NAME)


def run_name(cell: str, seed: int | None = None) -> str:
    """Return the name in MLflow of a cell, or of one of its seeds. What differs comes first: columns cut the end."""
    dataset, architecture, method = cell.split("/")
    parts = (method, *([] if seed is None else [f"seed {seed}"]), dataset, architecture)
    return " · ".join(parts)


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


def seed_statistics(histories: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Return mean, std (ddof=1) and number of the finished seeds, of the metrics that all seeds have."""
    values: dict[str, float] = {"seeds": len(histories)}
    seeds = [test_metrics(history[-1]) for history in histories]
    for name in set.intersection(*map(set, seeds)):  # earlier seeds lack a metric that was added later
        last = np.array([metrics[name] for metrics in seeds])
        values[f"{name}_mean"] = float(last.mean())
        if len(histories) > 1:
            values[f"{name}_std"] = float(last.std(ddof=1))
    return values


def seed_curves(name: str, histories: list[list[dict[str, Any]]]) -> Figure:
    labels = {f"test/{metric}": all_metrics()[metric].label for metric in CURVES} | {"train/loss": "Training loss"}
    method = name.rpartition("/")[2]
    curves = {
        label: {method: np.array([[record["metrics"][metric] for record in history] for history in histories])}
        for metric, label in labels.items()
    }
    return curves_figure(name, curves)


def cell_status(states: list[str]) -> str:
    """Return the MLflow status of a cell whose seeds have these states."""
    if all(state == DONE for state in states):
        return STATUS[DONE]
    return next((STATUS[state] for state in (RUNNING, FAILED, INTERRUPTED) if state in states), "SCHEDULED")
