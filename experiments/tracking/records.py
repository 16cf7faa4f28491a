"""What MLflow is told of a run folder, whatever experiment it is tracked in."""

import json
from typing import Any

from mlflow.entities import Metric

from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder

STATUS = {RUNNING: "RUNNING", INTERRUPTED: "KILLED", FAILED: "FAILED", DONE: "FINISHED"}
CPU = "cpu"  # the device of a start that had no GPU
METRICS_A_BATCH = 1000  # that MLflow takes in one request


def epoch_batches(epochs: list[dict[str, Any]], already: int) -> list[list[Metric]]:
    """The metrics of the epochs after the first ``already``, in pieces of whole epochs that MLflow takes."""
    length = METRICS_A_BATCH // max((len(record["metrics"]) for record in epochs[already:]), default=1)
    return [
        [
            Metric(name, value, int(record["timestamp"] * 1000), record["epoch"])
            for record in epochs[start : start + length]
            for name, value in record["metrics"].items()
        ]
        for start in range(already, len(epochs), length)
    ]


def minutes(epochs: list[dict[str, Any]]) -> float:
    """What training and testing took, over all the times the run was started."""
    seconds = (record["metrics"]["time/train_seconds"] + record["metrics"]["time/test_seconds"] for record in epochs)
    return sum(seconds) / 60


def kilojoules(epochs: list[dict[str, Any]]) -> float | None:
    """The energy that all epochs took; None where the machine did not tell it, or not of every epoch."""
    joules = [record["metrics"].get("system/energy_joules") for record in epochs]
    return None if None in joules else sum(joules) / 1e3


def start_tags(folder: RunFolder) -> dict[str, str]:
    """Where the run has been: of the latest start; the commits of all of them where they differ."""
    starts = folder.starts()
    latest = starts[-1]
    return {
        "git_commit": " ".join(dict.fromkeys(start["git_commit"] for start in starts)),
        "mlflow.source.git.commit": latest["git_commit"],
        "git_dirty": json.dumps(any(start["git_dirty"] for start in starts)),
        "machine": latest["machine"],
        "device": _device(latest),
        "precision": latest["precision"] + (" (compiled)" if latest.get("compiled") else ""),
        "python": latest["python"],
        **{f"package.{name}": version for name, version in latest["packages"].items()},
    }


def _device(start: dict[str, Any]) -> str:
    """With the threads where it is a CPU: their number changes the order of additions, and so the results."""
    if start["device"] != CPU:
        return start["device"]
    return f"{CPU}, {start['threads']} thread{'s' if start['threads'] > 1 else ''}"
