"""The runs of a grid in the order in which they can start: one that is taught waits for its teacher."""

from collections.abc import Iterator

from experiments.plan import PlannedRun
from experiments.run_folder import DONE, RUNNING, RunFolder


class Waiting:
    """The runs that a launch has to do. ``ready()`` gives them one by one; ``ended`` must be told of each that ends."""

    def __init__(self, runs: list[PlannedRun]):
        self.runs = runs
        self._left = list(runs)
        self._active: set[str] = set()  # run keys

    def ready(self) -> Iterator[PlannedRun | None]:
        """The next run that can start whenever one is drawn; None while all that are left wait for a teacher.

        Ends when nothing is left but runs whose teacher has failed or is not there.
        """
        while self._left:
            run = next((run for run in self._left if self._can_start(run)), None)
            if run is not None:
                self._left.remove(run)
                self._active.add(run.spec.run_key)
            elif not any(self._may_start_later(run) for run in self._left):
                return
            yield run

    def ended(self, run: PlannedRun) -> None:
        self._active.discard(run.spec.run_key)

    @staticmethod
    def _can_start(run: PlannedRun) -> bool:
        teacher = teacher_folder(run)
        return teacher is None or teacher.state()["state"] == DONE

    def _may_start_later(self, run: PlannedRun) -> bool:
        # DONE: by another launch, since it was asked whether the run can start
        return run.spec.teacher.run_key in self._active or teacher_folder(run).state()["state"] in (RUNNING, DONE)


def teacher_folder(run: PlannedRun) -> RunFolder | None:
    """The folder of the run that teaches this one, None for one that is not taught."""
    return RunFolder.of(run.spec.teacher, run.folder.path.parent) if run.spec.teacher else None
