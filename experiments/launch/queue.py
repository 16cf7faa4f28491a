"""The runs of a grid in the order in which they can start: one that is taught waits for its teacher.

One that another process trains, of another launch, is put aside until that process has done it or is gone.
"""

from collections.abc import Callable, Iterator

from experiments.runs.folder import DONE, FAILED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun


class RunQueue:
    """The runs that a launch has to do. ``ready()`` gives them one by one; ``ended`` must be told of each that ends.

    elsewhere(run, state): told of a run that another process trains (RUNNING), once, and how it has ended it.
    """

    def __init__(self, runs: list[PlannedRun], elsewhere: Callable[[PlannedRun, str], None] = lambda run, state: None):
        self.runs = runs
        self.elsewhere = elsewhere
        self._left = list(runs)
        self._active: set[str] = set()  # run keys
        self._aside: set[str] = set()  # run keys
        self._before = {run.spec.run_key: run.folder.state() for run in runs}

    def ready(self) -> Iterator[PlannedRun | None]:
        """The next run that can start whenever one is drawn; None while all that are left wait for a teacher, or for
        other processes that train them.

        Ends when nothing is left but runs whose teacher has failed or is not there.
        """
        while self._left:
            run = self._next()
            if run is not None:
                self._left.remove(run)
                self._active.add(run.spec.run_key)
            elif not any(self._may_start_later(run) for run in self._left):
                return
            yield run

    def ended(self, run: PlannedRun, state: str = "") -> None:
        """state: RUNNING means that another process has it."""
        self._active.discard(run.spec.run_key)
        if state == RUNNING:
            self._left.append(run)
            self._aside.add(run.spec.run_key)

    def _next(self) -> PlannedRun | None:
        for run in list(self._left):
            if not self._can_start(run):
                continue
            if run.folder.is_claimed():
                if run.spec.run_key not in self._aside:
                    self._aside.add(run.spec.run_key)
                    self.elsewhere(run, RUNNING)
            elif self._has_ended(run, state := run.folder.state()):
                self._left.remove(run)
                self.elsewhere(run, state["state"])
            else:
                return run
        return None

    def _has_ended(self, run: PlannedRun, state: dict) -> bool:
        """Whether another launch has done it. A failure that was known at the start is to be tried again."""
        return state["state"] == DONE or (state["state"] == FAILED and state != self._before[run.spec.run_key])

    @staticmethod
    def _can_start(run: PlannedRun) -> bool:
        teacher = teacher_folder(run)
        return teacher is None or teacher.state()["state"] == DONE

    def _may_start_later(self, run: PlannedRun) -> bool:
        teacher = teacher_folder(run)
        if teacher is None:
            return True  # another process has it, or had it a moment ago
        # DONE: by another launch, since it was asked whether the run can start
        return run.spec.teacher.run_key in self._active or teacher.state()["state"] in (RUNNING, DONE)


def teacher_folder(run: PlannedRun) -> RunFolder | None:
    """The folder of the run that teaches this one, None for one that is not taught."""
    return RunFolder.of(run.spec.teacher, run.folder.path.parent) if run.spec.teacher else None
