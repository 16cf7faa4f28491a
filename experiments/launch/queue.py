"""The order of a grid's runs: a student starts when its teacher is done.

A run that another launch trains is set aside until that launch has finished it or has died.
"""

from collections.abc import Callable, Iterator
from typing import Any

from experiments.runs.folder import DONE, FAILED, RUNNING
from experiments.runs.plan import PlannedRun


class RunQueue:
    """The runs that a launch trains. ``ready()`` yields them; ``ended`` must be called for each that it yields.

    Args:
        on_other_launch: called as (run, RUNNING) once if another launch trains the run, and as (run, state) when
            that launch has finished it.
    """

    def __init__(
        self,
        runs: list[PlannedRun],
        on_other_launch: Callable[[PlannedRun, str], None] = lambda run, state: None,
    ):
        self.runs = runs
        self.on_other_launch = on_other_launch
        self._pending = list(runs)
        self._active: set[str] = set()  # run keys
        self._set_aside: set[str] = set()  # run keys
        self._first_states = {run.spec.run_key: run.folder.state() for run in runs}

    def ready(self) -> Iterator[PlannedRun | None]:
        """Yield the next run that can start, or None while there is none.

        End when all started runs have ended and no other can start: the teachers of pending runs have failed.
        """
        while self._pending or self._active:  # a started run may come back: another process trains it
            run = self._next()
            if run is not None:
                self._pending.remove(run)
                self._active.add(run.spec.run_key)
            elif not self._active and not any(self._may_start_later(run) for run in self._pending):
                return
            yield run

    def ended(self, run: PlannedRun, state: str = "") -> None:
        """Record that a run ended. state: RUNNING if another process trains it."""
        self._active.discard(run.spec.run_key)
        if state == RUNNING:
            self._pending.append(run)
            self._set_aside.add(run.spec.run_key)

    def _next(self) -> PlannedRun | None:
        for run in list(self._pending):
            if not self._teacher_is_done(run):
                continue
            if run.folder.is_held():
                if run.spec.run_key not in self._set_aside:
                    self._set_aside.add(run.spec.run_key)
                    self.on_other_launch(run, RUNNING)
            elif self._has_ended(run, state := run.folder.state()):
                self._pending.remove(run)
                self.on_other_launch(run, state["state"])
            else:
                return run
        return None

    def _has_ended(self, run: PlannedRun, state: dict[str, Any]) -> bool:
        """Return True if another launch has finished the run. A failure from before this launch is tried again."""
        return state["state"] == DONE or (state["state"] == FAILED and state != self._first_states[run.spec.run_key])

    @staticmethod
    def _teacher_is_done(run: PlannedRun) -> bool:
        return run.teacher is None or run.teacher.state()["state"] == DONE

    def _may_start_later(self, run: PlannedRun) -> bool:
        if run.teacher is None:
            return True  # another process trains it
        # DONE: another launch has finished the teacher since ``_next`` looked
        return run.teacher.state()["state"] in (RUNNING, DONE)
