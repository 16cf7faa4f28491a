"""Conversion of a run folder's files to MLflow's metrics, tags, datasets and artifacts."""

import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric

from cskd.plots import method_color, reliability_figure
from experiments.config.spec import RunSpec
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder

STATUS = {RUNNING: "RUNNING", INTERRUPTED: "KILLED", FAILED: "FAILED", DONE: "FINISHED"}
MAX_BATCH = 1000  # MLflow's limit of metrics in one request


def epoch_batches(epochs: list[dict[str, Any]], skip: int, prefix: str = "") -> list[list[Metric]]:
    """Return the metrics of all epochs but the first ``skip``, in batches of complete epochs.

    prefix: put before each metric's name.
    """
    epochs = epochs[skip:]
    size = MAX_BATCH // max((len(record["metrics"]) for record in epochs), default=1)
    return [
        [
            Metric(prefix + name, value, int(record["timestamp"] * 1000), record["epoch"])
            for record in epochs[start : start + size]
            for name, value in record["metrics"].items()
        ]
        for start in range(0, len(epochs), size)
    ]


def result_metrics(summary: dict[str, Any], timestamp: float) -> list[Metric]:
    """Return the results of a finished run: its best test epoch, minutes and energy.

    timestamp: of the last epoch, so that a repeated upload sends identical points.
    """
    best = summary["best"]
    values = {name.replace("test/", "best/"): value for name, value in test_metrics(best).items()}
    values |= {"best/epoch": best["epoch"], "minutes": summary["minutes"]}
    if summary["energy_kilojoules"] is not None:
        values["energy_kilojoules"] = summary["energy_kilojoules"]
    return [Metric(*item, int(timestamp * 1000), 0) for item in values.items()]


def test_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's metrics of the test set. They differ with the dataset and the epoch."""
    return {name: value for name, value in record["metrics"].items() if name.startswith("test/")}


def environment_tags(starts: list[dict[str, Any]]) -> dict[str, str]:
    """Return where the latest start of a training ran. ``git_commit`` lists the commits of all its starts."""
    latest = starts[-1]
    return {
        "git_commit": " ".join(dict.fromkeys(start["git_commit"] for start in starts)),
        "mlflow.source.git.commit": latest["git_commit"],
        "git_dirty": json.dumps(any(start["git_dirty"] for start in starts)),
        "machine": latest["machine"],
        "device": latest["device"],
        "threads": str(latest["threads"]),
        "precision": latest["precision"],
        "compiled": json.dumps(latest["compiled"]),
        "python": latest["python"],
        **{f"package.{name}": version for name, version in latest["packages"].items()},
    }


def dataset_input(spec: RunSpec) -> DatasetInput:
    source = json.dumps({"reader": spec.settings.data.reader, "sha256": spec.data_digest})
    return DatasetInput(Dataset(spec.dataset, spec.data_digest[:16], "local", source))


def upload_artifacts(client: MlflowClient, run_id: str, spec: RunSpec, folder: RunFolder) -> None:
    """Upload the files of a finished run, and its reliability diagram. Users may have deleted files to save space."""
    for file in (folder.predictions, folder.weights, folder.environment, folder.spec_file):
        if file.exists():
            client.log_artifact(run_id, str(file))
    if not folder.predictions.exists():
        return
    predictions = folder.load_predictions()
    figure = reliability_figure(predictions.logits, predictions.labels, spec.name, method_color(spec.method))
    client.log_figure(run_id, figure, "reliability.png")
