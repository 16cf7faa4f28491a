"""The summary of a run, as the worker writes it at the end of every training process."""

from typing import Any

from experiments.config.spec import RunSpec


def summarise(
    spec: RunSpec, environment: dict[str, Any], records: list[dict[str, Any]], state: str, reason: str, ended: float
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        environment: {"training_id", "starts"}.
        records: {"epoch", "timestamp", "metrics"} of each epoch.
        ended: unix seconds.

    Returns:
        training_id, state, reason, epochs_done, epochs, started and ended (unix seconds), minutes (training and
        testing, over all starts), energy_kilojoules (None unless measured in every epoch), last and best
        ({"epoch", "metrics"} or None). The best epoch is the one with the lowest top-1 error.
    """
    metrics = [record["metrics"] for record in records]
    joules = [values.get("system/energy_joules") for values in metrics]
    starts = environment["starts"]
    best = min(records, key=lambda record: record["metrics"][f"{spec.eval_split}/top1_error"], default=None)
    return {
        "training_id": environment["training_id"],
        "state": state,
        "reason": reason,
        "epochs_done": len(records),
        "epochs": spec.settings.schedule.epochs,
        "started": starts[0]["started"] if starts else None,
        "ended": ended,
        "minutes": sum(values["time/train_seconds"] + values["time/test_seconds"] for values in metrics) / 60,
        "energy_kilojoules": None if not joules or None in joules else sum(joules) / 1e3,
        "last": _epoch(records[-1]) if records else None,
        "best": _epoch(best) if best else None,
    }


def _epoch(record: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": record["epoch"], "metrics": record["metrics"]}
