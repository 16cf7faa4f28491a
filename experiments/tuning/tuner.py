"""Runs a study's trials: asks for them, hands their runs to the launcher, and tells the study how they ended."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from experiments.runs.folder import DONE, FAILED, INTERRUPTED
from experiments.runs.plan import PlannedRun
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.space import Point
from experiments.tuning.study import Study
from experiments.tuning.trial import Trial

BUSY_SECONDS = 10.0  # before a run that another process trains is looked at again
FAILURES = 3  # trials in a row that failed while none has ever completed: it is not the parameters


@dataclass
class Current:
    """A trial that this process is at."""

    trial: Trial
    runs: list[PlannedRun]
    done: int = 0
    reason: str | None = None  # why it has failed
    pruned: bool = False
    interrupted: bool = False  # one of its runs was
    reported: int = 0  # epochs that the pruner has been told of


class Tuner:
    """The trials of one process. ``runs()`` and the three reactions are what a launcher needs."""

    def __init__(
        self,
        study: Study,
        count: int,
        make_runs: Callable[[Point], list[PlannedRun]],
        *,
        deadline: float | None = None,
        prune_after: int | None = None,
        ended: Callable[[Trial, str], None] = lambda trial, message: None,
    ):
        """count: of trials in the whole study. make_runs: parameters -> the trial's runs, one a seed.

        deadline: time.monotonic() after which no new trial begins. prune_after: epochs before which nothing is
        pruned; None prunes nothing.
        """
        self.study, self.count, self.make_runs = study, count, make_runs
        self.deadline, self.prune_after, self.ended_trial = deadline, prune_after, ended
        self.current: dict[int, Current] = {}
        self.waiting: list[tuple[float, Current, PlannedRun]] = []  # not before when, whose, what
        self.active: dict[str, Current] = {}  # run key -> the trial that trains it
        self.failures = 0
        self.interrupted = 0  # trials that stay begun, for the next launch
        self.gave_up: str | None = None  # why no more trials are asked for
        self._is_full = False  # as many trials have begun as are wanted

    def runs(self) -> Iterator[PlannedRun | None]:
        """The next run whenever one is drawn; None while there is none to start."""
        while True:
            run = self._next_waiting()
            if run is None and not self.waiting and self._may_ask():
                run = self._next_trial()
            if run is None and not self.current and not self._may_ask():
                return
            yield run

    def _may_ask(self) -> bool:
        in_time = self.deadline is None or time.monotonic() < self.deadline
        return in_time and self.gave_up is None and not self._is_full

    def _next_waiting(self) -> PlannedRun | None:
        for item in self.waiting:
            when, current, run = item
            if time.monotonic() >= when and run.spec.run_key not in self.active:
                self.waiting.remove(item)
                self.active[run.spec.run_key] = current
                return run
        return None

    def _next_trial(self) -> PlannedRun | None:
        trial = self.study.take(self.count)
        if trial is None:
            # Also while others are still at theirs: should one of them die, the next launch takes it over.
            self._is_full = True
            return None
        current = Current(trial, self.make_runs(trial.parameters))
        self.study.record_runs(trial.number, {run.spec.seed: run.spec.run_key for run in current.runs})
        self.current[trial.number] = current
        for run in current.runs:
            run.folder.create(run.spec)
            if run.folder.state()["state"] == DONE:  # by another trial or study with the same parameters
                current.done += 1
            else:
                self.waiting.append((0.0, current, run))
        if current.done == len(current.runs):
            self._finish(current)
            return None
        return self._next_waiting()

    # reactions

    def moved(self, run: PlannedRun) -> None:
        self.study.beat()
        current = self.active[run.spec.run_key]
        if self.prune_after is None or current.pruned:
            return
        epochs = min(len(one.folder.epochs()) for one in current.runs)
        if epochs > max(current.reported, self.prune_after) and epochs < run.spec.settings.schedule.epochs:
            current.reported = epochs
            (value,) = self._values(current, epochs - 1)
            current.pruned = self.study.report(current.trial.number, epochs, value, self.prune_after)

    def unwanted(self, run: PlannedRun) -> bool:
        current = self.active[run.spec.run_key]
        return current.pruned or current.reason is not None

    def ended(self, run: PlannedRun, state: str) -> None:
        current = self.active.pop(run.spec.run_key)
        if state == DONE:
            current.done += 1
        elif state == FAILED:
            current.reason = f"{run.spec.name}: {run.folder.state().get('reason')}"
            self.waiting = [item for item in self.waiting if item[1] is not current]
        elif state == INTERRUPTED:
            current.interrupted = True
        else:  # another process trains that very run
            self.waiting.append((time.monotonic() + BUSY_SECONDS, current, run))
            return
        if current.pruned:
            self.waiting = [item for item in self.waiting if item[1] is not current]
        if current in self.active.values() or any(item[1] is current for item in self.waiting):
            return  # another seed of it is still to come
        if current.interrupted and not (current.pruned or current.reason):
            self.interrupted += 1
            del self.current[current.trial.number]
        else:
            self._finish(current)

    def _finish(self, current: Current) -> None:
        number = current.trial.number
        message = ""
        if current.reason:
            self.study.fail(number, current.reason)
            self.failures += 1
            message = f"failed: {current.reason}"
        elif current.pruned and current.done < len(current.runs):
            self.study.prune(number)
            message = f"pruned after {current.reported} epochs"
        else:
            values = self._values(current, -1)
            self.study.complete(number, self._metrics(current, -1), values)
            message = ", ".join(
                f"{name} {value:.4g}" for name, value in zip(self.study.objectives, values, strict=True)
            )
            self.failures = 0
        del self.current[number]
        self.ended_trial(current.trial, message)
        if self.failures >= FAILURES and not any(trial.metrics for trial in self.study.trials()):
            self.gave_up = f"the first {self.failures} trials have failed: it is not their parameters"

    @staticmethod
    def _metrics(current: Current, epoch: int) -> dict[str, float]:
        """Mean over the seeds of every metric of the validation split after an epoch."""
        records = [run.folder.epochs()[epoch]["metrics"] for run in current.runs]
        names = [name for name in records[0] if name.startswith("validation/")]
        return {
            name.removeprefix("validation/"): float(np.mean([record[name] for record in records])) for name in names
        }

    def _values(self, current: Current, epoch: int) -> list[float]:
        metrics = self._metrics(current, epoch)
        return [metrics[OBJECTIVES[name]] for name in self.study.objectives]
