"""Which RUNS_DIR an MLflow run tells of. One store may have runs of several, also of the same settings and seed."""

import math
import uuid
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from cskd.utils.files import atomic_write, exclusive

ORIGIN = "runs_dir_id"  # the tag
CLOCK = "time/train_seconds"  # a metric: no two trainings of an epoch take equally long


def origin_of(runs_dir: Path) -> str:
    """A name that this RUNS_DIR alone has, made when it is first asked for."""
    folder = runs_dir / "plans" / "origin"
    file = folder / "id"
    with exclusive(folder / "lock"):
        if not file.exists():
            with atomic_write(file) as content:
                content.write(uuid.uuid4().hex.encode())
        return file.read_text()


def tells_of_another_training(
    client: MlflowClient, run_id: str, epochs: list[dict[str, Any]], prefix: str = ""
) -> bool:
    """Whether MLflow was told of epochs that were trained again since, for a damaged file.

    MLflow takes nothing back: it would show a mixture of the two, whose clock, machine and perhaps device differ.
    prefix: of the metrics' names there.
    """
    seconds = {record["epoch"]: record["metrics"][CLOCK] for record in epochs}
    message = client.get_metric_history(run_id, prefix + CLOCK)
    return any(not math.isclose(point.value, seconds.get(point.step, math.nan)) for point in message)
