"""The objectives and trials of a study as plain data, and the choice of the best trial."""

import math
from dataclasses import dataclass, field
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from cskd.evaluate.metrics import EPOCH, METRICS, PERCENT
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.numbers import mean_std_text

# Objectives are minimised, and the pruner needs their value after every epoch.
OBJECTIVES = {metric.short_name: metric for metric in METRICS if metric.when == EPOCH and not metric.higher_is_better}
TIE_BREAKER = "nll"

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
STATES = {
    TrialState.RUNNING: RUNNING,
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
}


@dataclass(frozen=True)
class Trial:
    """One started trial.

    values: the objectives' values; None unless the trial is complete.
    metrics: validation metrics after the last epoch, mean over the seeds; empty unless the trial is complete.
    runs: the run key of each seed.
    reason: why the trial failed; "" otherwise.
    standard_errors: of the metrics, if known (see ``noise.standard_errors``).
    """

    number: int
    state: str
    parameters: dict[str, float]
    values: tuple[float, ...] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    reason: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    standard_errors: dict[str, float] = field(default_factory=dict)


def trial_of(frozen: FrozenTrial) -> Trial:
    """Return a started trial of Optuna as a Trial."""
    attributes = frozen.user_attrs
    return Trial(
        number=frozen.number,
        state=STATES[frozen.state],
        parameters={name: float(value) for name, value in frozen.params.items()},
        values=tuple(frozen.values) if frozen.state is TrialState.COMPLETE else None,
        metrics=attributes.get("metrics", {}),
        standard_errors=attributes.get("standard_errors", {}),
        runs={int(seed): key for seed, key in attributes.get("runs", {}).items()},
        reason=attributes.get("reason", ""),
        started=frozen.datetime_start,
        ended=frozen.datetime_complete,
    )


def parse_objectives(text: str) -> tuple[str, ...]:
    """Return the objectives of ``error`` or ``error,ece``. Raises UserError."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        check_choice("objective", name, OBJECTIVES)
    if len(names) > 2 or len(set(names)) != len(names):
        raise UserError(f"OBJECTIVE={text}: give one of {', '.join(OBJECTIVES)}, or two of them, such as error,ece")
    return names


def unit_of(objective: str) -> str:
    """Return "%", "nats", or "" for a number without a unit."""
    metric = OBJECTIVES[objective]
    return "%" if metric.scale == PERCENT else metric.unit if metric.unit.isalpha() else ""


def format_objectives(objectives: tuple[str, ...], values: tuple[float, ...], standard_errors: dict[str, float]) -> str:
    """Return text such as ``error 43.75 ± 0.62 %, nll 1.310 nats``, with standard errors where they are known."""
    parts = []
    for objective, value in zip(objectives, values, strict=True):
        metric = OBJECTIVES[objective]
        error = standard_errors.get(metric.name, math.nan)
        parts.append(f"{objective} {mean_std_text(value, error, metric.decimals)} {unit_of(objective)}".rstrip())
    return ", ".join(parts)


def format_point(point: dict[str, float]) -> str:
    """Return text such as ``temperature 4, lambda_cls 1``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in point.items())


def best_of(trials: list[Trial]) -> Trial | None:
    """Return the complete trial with the lowest value. Ties: the lowest NLL, then the first. None if there is none."""
    complete = [trial for trial in trials if trial.state == COMPLETE and len(trial.values) == 1]
    return min(complete, key=lambda trial: (trial.values[0], trial.metrics[TIE_BREAKER], trial.number), default=None)


def pareto_front(trials: list[Trial]) -> list[Trial]:
    """Return the complete trials that no other trial dominates, by the first objective."""
    complete = [trial for trial in trials if trial.state == COMPLETE]

    def dominates(first: Trial, second: Trial) -> bool:
        return first.values != second.values and all(a <= b for a, b in zip(first.values, second.values, strict=True))

    front = [trial for trial in complete if not any(dominates(other, trial) for other in complete)]
    return sorted(front, key=lambda trial: (trial.values, trial.number))
