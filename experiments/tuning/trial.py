"""A trial as a study has it, and which of them came out best."""

from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from experiments.tuning.space import Point

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
STATES = {
    TrialState.RUNNING: RUNNING,
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
}


@dataclass(frozen=True)
class Trial:
    """One trial as the storage has it."""

    number: int
    state: str
    parameters: Point
    values: tuple[float, ...] | None  # one an objective, when complete
    metrics: dict[str, float]  # of the validation split after the last epoch, mean over the seeds, when complete
    runs: dict[int, str]  # seed -> run key
    reason: str  # why it failed
    started: datetime | None
    ended: datetime | None
    steps: dict[int, float]  # finished epochs -> what the pruner was told


def trial_of(frozen: FrozenTrial) -> Trial:
    """A trial that was begun, as the storage has it."""
    attributes = frozen.user_attrs
    return Trial(
        number=frozen.number,
        state=STATES[frozen.state],
        parameters={name: float(value) for name, value in frozen.params.items()},
        values=tuple(frozen.values) if frozen.state is TrialState.COMPLETE else None,
        metrics=attributes.get("metrics", {}),
        runs={int(seed): key for seed, key in attributes.get("runs", {}).items()},
        reason=attributes.get("reason", ""),
        started=frozen.datetime_start,
        ended=frozen.datetime_complete,
        steps=dict(frozen.intermediate_values),
    )


def best_of(trials: list[Trial]) -> Trial | None:
    """The complete trial with the lowest value; of equals the one with the lowest NLL, then the earliest."""
    complete = [one for one in trials if one.state == COMPLETE and len(one.values) == 1]
    return min(complete, key=lambda one: (one.values[0], one.metrics["nll"], one.number), default=None)


def pareto_front(trials: list[Trial]) -> list[Trial]:
    """The complete trials of two objectives that no other one beats in both, by the first objective."""
    complete = [one for one in trials if one.state == COMPLETE]

    def beaten(one: Trial) -> bool:
        return any(
            all(a <= b for a, b in zip(other.values, one.values, strict=True)) and other.values != one.values
            for other in complete
        )

    return sorted((one for one in complete if not beaten(one)), key=lambda one: (one.values, one.number))
