"""Conversion of a run folder's files to MLflow's metrics, tags, datasets and artifacts."""

import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from cskd.evaluate.predictions import load_predictions
from cskd.plots import method_style, reliability_figure
from experiments.config.spec import RunSpec
from experiments.runs.folder import RunFolder


def test_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's metrics of the test set. Merged datasets and the last epoch have more of them."""
    return {name: value for name, value in record["metrics"].items() if name.startswith("test/")}


def result_values(summary: dict[str, Any]) -> dict[str, float]:
    """Return minutes and energy of a finished run."""
    values = {"minutes": summary["minutes"], "energy_kilojoules": summary["energy_kilojoules"]}
    return {name: value for name, value in values.items() if value is not None}


def best_epoch_tag(summary: dict[str, Any]) -> dict[str, str]:
    """Return number and test metrics of the best test epoch, as JSON: MLflow would chart a metric with one value."""
    best = summary["best"]
    metrics = {name.removeprefix("test/"): value for name, value in test_metrics(best).items()}
    return {"best_epoch": json.dumps({"epoch": best["epoch"]} | metrics)}


def environment_tags(starts: list[dict[str, Any]]) -> dict[str, str]:
    """Return where the latest start of a training ran. Commits and digests of the code are those of all its starts."""
    latest, dirty = starts[-1], [start["git_dirty"] for start in starts]
    return {
        "git_commit": " ".join(dict.fromkeys(start["git_commit"] for start in starts)),
        "mlflow.source.git.commit": latest["git_commit"],
        "git_dirty": "true" if True in dirty else "unknown" if None in dirty else "false",
        "source_digest": " ".join(dict.fromkeys(start["source_digest"] for start in starts)),
        **{name: latest[name] for name in ("machine", "device", "precision", "python")},
        "threads": str(latest["threads"]),
        "compiled": json.dumps(latest["compiled"]),
        **{f"package.{name}": version for name, version in latest["packages"].items()},
    }


def spec_tags(spec: RunSpec) -> dict[str, str]:
    return {name: getattr(spec, name) for name in ("dataset", "architecture", "method", "profile")}


def shared_settings(spec: RunSpec) -> dict[str, Any]:
    """Return the settings that all seeds share."""
    return {name: value for name, value in spec.flat().items() if name != "seed"}


def dataset_input(spec: RunSpec) -> DatasetInput:
    source = json.dumps({"reader": spec.settings.data.reader, "sha256": spec.data_digest})
    return DatasetInput(Dataset(spec.dataset, spec.data_digest[:16], "local", source))


def upload_artifacts(client: MlflowClient, run_id: str, spec: RunSpec, folder: RunFolder) -> None:
    """Upload the files of a finished run, and its reliability diagram. Users may have deleted files to save space."""
    for file in (folder.predictions, folder.evaluation, folder.weights, folder.environment, folder.spec_file):
        if file.exists():
            client.log_artifact(run_id, str(file))
    if folder.predictions.exists():
        predictions = load_predictions(folder.predictions)
        figure = reliability_figure(predictions.logits, predictions.labels, spec.name, method_style(spec.method).color)
        client.log_figure(run_id, figure, "reliability.png")
