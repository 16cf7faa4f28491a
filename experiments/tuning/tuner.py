"""Run a study's trials: ask for a trial, give its runs to the launch loop, and record the result in the study."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from experiments.runs.folder import DONE, FAILED, INTERRUPTED
from experiments.runs.plan import PlannedRun
from experiments.tuning.noise import standard_errors
from experiments.tuning.space import Point
from experiments.tuning.study import Study
from experiments.tuning.trial import OBJECTIVES, Trial, format_objectives

BUSY_SECONDS = 10.0  # between two tries to start a run that another process trains
MAX_FAILURES = 3  # the tuner gives up after so many failed trials without a complete trial


@dataclass(eq=False)
class ActiveTrial:
    """A trial that this process runs."""

    trial: Trial
    runs: list[PlannedRun]
    done: int = 0  # runs
    failure: str = ""
    pruned: bool = False
    interrupted: bool = False
    reported_epochs: int = 0

    @property
    def should_stop(self) -> bool:
        """True if the other runs of the trial must stop."""
        return self.pruned or bool(self.failure)

    def metrics(self, epoch: int) -> dict[str, float]:
        """Return each validation metric that all seeds have after an epoch, as the mean over the seeds."""
        records = [run.folder.epochs()[epoch]["metrics"] for run in self.runs]
        names = [name for name in records[0] if all(name in record for record in records)]
        return {
            name.removeprefix("validation/"): float(np.mean([record[name] for record in records]))
            for name in names
            if name.startswith("validation/")
        }


class Tuner:
    """The trials of one process: ``runs`` and the callbacks of the launch loop."""

    def __init__(
        self,
        study: Study,
        max_trials: int,
        make_runs: Callable[[Point], list[PlannedRun]],
        *,
        deadline: float | None = None,
        prune_after: int | None = None,
        on_trial_end: Callable[[Trial, str], None] = lambda trial, result: None,
    ):
        """max_trials: trials of the whole study. make_runs: returns a trial's runs, one per seed.

        deadline: time.monotonic() after which no trial starts. prune_after: the last epoch before pruning; None: never
        prune. on_trial_end: gets the trial and its result in a line.
        """
        self.study, self.max_trials, self.make_runs = study, max_trials, make_runs
        self.deadline, self.prune_after, self.on_trial_end = deadline, prune_after, on_trial_end
        self.interrupted = 0  # trials that the next launch continues
        self.gave_up = ""  # the reason why no more trials start
        self.is_complete = False  # the study has started all its trials
        self._trials: list[ActiveTrial] = []
        self._waiting: list[tuple[PlannedRun, ActiveTrial, float]] = []  # the last: time.monotonic() of its start
        self._training: dict[str, ActiveTrial] = {}  # by run key
        self._failures = 0

    def runs(self) -> Iterator[PlannedRun | None]:
        """Yield the next run to start, or None while there is none."""
        while True:
            run = self._next_waiting()
            if run is None and not self._waiting and self._may_ask():
                run = self._next_trial()
            if run is None and not self._trials and not self._may_ask():
                return
            yield run

    def _may_ask(self) -> bool:
        in_time = self.deadline is None or time.monotonic() < self.deadline
        return in_time and not self.gave_up and not self.is_complete

    def _next_waiting(self) -> PlannedRun | None:
        for waiting in self._waiting:
            run, active, start_after = waiting
            if time.monotonic() >= start_after and run.spec.run_key not in self._training:
                self._waiting.remove(waiting)
                self._training[run.spec.run_key] = active
                return run
        return None

    def _next_trial(self) -> PlannedRun | None:
        trial = self.study.ask(self.max_trials)
        if trial is None:
            # Trials of other processes still run. If one of these processes dies, the next launch takes over.
            self.is_complete = True
            return None
        active = ActiveTrial(trial, self.make_runs(trial.parameters))
        self.study.record_runs(trial.number, {run.spec.seed: run.spec.run_key for run in active.runs})
        self._trials.append(active)
        for run in active.runs:
            run.folder.create(run.spec)
            run.folder.discard_damaged()
            if run.folder.state()["state"] == DONE:  # by another trial or study with the same parameters
                active.done += 1
            else:
                self._waiting.append((run, active, 0.0))
        if active.done == len(active.runs):
            self._finish(active)
            return None
        return self._next_waiting()

    # callbacks of the launch loop

    def should_stop(self, run: PlannedRun) -> bool:
        """Return True if the trial has failed, or is pruned after its latest epoch."""
        active = self._training[run.spec.run_key]
        if self.prune_after is not None and not active.should_stop:
            self._prune(active, run.spec.settings.schedule.epochs)
        return active.should_stop

    def _prune(self, active: ActiveTrial, last_epoch: int) -> None:
        epochs = min(len(run.folder.epochs()) for run in active.runs)
        if max(active.reported_epochs, self.prune_after) < epochs < last_epoch:
            active.reported_epochs = epochs
            (value,) = self._values(active.metrics(epochs - 1))
            active.pruned = self.study.should_prune(active.trial.number, epochs, value, self.prune_after)

    def ended(self, run: PlannedRun, state: str) -> None:
        active = self._training.pop(run.spec.run_key)
        if state == DONE:
            active.done += 1
        elif state == FAILED:
            active.failure = f"{run.spec.name} {run.folder.state()['reason']}"
        elif state == INTERRUPTED:
            active.interrupted = True
        else:  # another process trains this run
            self._waiting.append((run, active, time.monotonic() + BUSY_SECONDS))
        if active.should_stop:
            self._waiting = [waiting for waiting in self._waiting if active not in waiting]
        if active in self._training.values() or any(active in waiting for waiting in self._waiting):
            return
        if active.interrupted and not active.should_stop:
            self.interrupted += 1
            self._trials.remove(active)
        else:
            self._finish(active)

    def _finish(self, active: ActiveTrial) -> None:
        number = active.trial.number
        if active.failure:
            self.study.fail(number, active.failure)
            self._failures += 1
            result = active.failure
        elif active.pruned and active.done < len(active.runs):
            self.study.prune(number)
            result = f"pruned after {active.reported_epochs} epochs"
        else:
            metrics = active.metrics(-1)
            values = self._values(metrics)
            errors = standard_errors([run.folder for run in active.runs])
            self.study.complete(number, metrics, values, errors)
            self._failures = 0
            result = format_objectives(self.study.objectives, values, errors)
        self._trials.remove(active)
        self.on_trial_end(active.trial, result)
        if self._failures >= MAX_FAILURES and not any(trial.metrics for trial in self.study.trials()):
            self.gave_up = f"the first {self._failures} trials have failed, so their hyper-parameters are not the cause"

    def _values(self, metrics: dict[str, float]) -> tuple[float, ...]:
        return tuple(metrics[OBJECTIVES[name].name] for name in self.study.objectives)
