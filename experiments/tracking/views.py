"""Two views of an experiment in MLflow's UI, its cells and its seeds or its studies and trials, and links to them.

MLflow 3.17 opens an experiment on its traces, and the table of its runs without a metric. A shared view, which is a tag
of the experiment, together with the parameters of a link opens this table with columns, a filter and an order.
"""

import json

from mlflow import MlflowClient

from cskd.utils.databases import view_path

METRICS = ("top1_error", "ece", "nll")
TAG = "mlflow.sharedViewState."


def _view(kind: str, columns: tuple[str, ...], order: str) -> str:
    """Return the JSON of a view. kind: the tag of the runs that it shows."""
    state = {
        "searchFilter": f"tags.kind = '{kind}'",
        "orderByKey": order,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "runsExpanded": {},
    }
    return json.dumps(state)


VIEWS = {
    "cells": _view(
        "cell",
        (*(f"metrics.`test/{name}_{value}`" for name in METRICS for value in ("mean", "std")), "metrics.`seeds`"),
        f"metrics.`test/{METRICS[0]}_mean`",
    ),
    "seeds": _view(
        "run",
        ("tags.`state`", *(f"metrics.`test/{name}`" for name in METRICS), "metrics.`minutes`"),
        f"metrics.`test/{METRICS[0]}`",
    ),
}
STUDY_VIEWS = {
    "studies": _view(
        "study",
        tuple(f"tags.`{name}`" for name in ("objective", "best_parameters", "best_metrics")),
        "attributes.start_time",
    ),
    "trials": _view(
        "trial",
        ("tags.`study`", "tags.`state`", *(f"metrics.`mean/{name}`" for name in METRICS), "metrics.`minutes`"),
        f"metrics.`mean/{METRICS[0]}`",
    ),
}


def view_tags(views: dict[str, str]) -> dict[str, str]:
    """Return the tags of an experiment that has these views."""
    return {f"{TAG}{name}": view for name, view in views.items()}


def view_links(client: MlflowClient, address: str) -> dict[str, dict[str, str]]:
    """Return ``{experiment's name: {view: link}}`` of the experiments with views, the last changed first.

    address: of the server, without a slash at its end.
    """
    links = {}
    for experiment in client.search_experiments(order_by=["last_update_time DESC"]):
        views = [name.removeprefix(TAG) for name in experiment.tags if name.startswith(TAG)]
        if views:
            links[experiment.name] = {
                view: f"{address}/{view_path(experiment.experiment_id, view)}" for view in sorted(views)
            }
    return links
