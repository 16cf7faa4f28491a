"""The run that teaches a study's trials: trained before the first of them, once for all."""

import time
from collections.abc import Iterator

from cskd.utils.errors import UserError
from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, RUNNING
from experiments.runs.plan import PlannedRun


class Teaching:
    """Puts the teacher, if there is one that is not done, before the trials. Must be told how it ends.

    One that another process trains is waited for. One that has failed is trained again only on request.
    """

    def __init__(self, teacher: PlannedRun | None, taught: PlannedRun, *, retry: bool, deadline: float | None = None):
        """taught: any run of the trials. retry: whether a teacher that has failed is to be trained again.

        deadline: time.monotonic() after which nobody else's teacher is waited for.
        """
        self.teacher = teacher if teacher is not None and teacher.folder.state()["state"] != DONE else None
        self.deadline = deadline
        self._taught = taught
        self._retry = retry
        self._is_here = False  # this process trains it

    def check_not_failed(self) -> None:
        """Raises UserError for a teacher that has failed and is not to be tried again."""
        if self.teacher is not None and not self.teacher.is_pending(self._retry):
            self.check_trained()

    def before(self, trials: Iterator[PlannedRun | None]) -> Iterator[PlannedRun | None]:
        """The teacher, None while it is being trained, and then the trials' runs; without a teacher these alone."""
        if self.teacher is not None:
            self._waiting = RunQueue([self.teacher, self._taught])
            for run in self._waiting.ready():
                if run is self._taught or (run is None and (self._is_too_late() or self._has_taught())):
                    break
                if run is not None:
                    run.folder.create(run.spec)
                    self._is_here = True
                yield run
            if self.teacher.folder.state()["state"] != DONE:
                return
        yield from trials

    def is_of(self, run: PlannedRun) -> bool:
        """Whether a run is the teacher."""
        return run is self.teacher

    def ended(self, state: str = "") -> None:
        """state: as that of RunQueue.ended."""
        self._is_here = False
        self._waiting.ended(self.teacher, state)

    def check_trained(self) -> None:
        """Raises UserError for a teacher that is not done and that nobody trains any more."""
        state = self.teacher.folder.state() if self.teacher is not None else {"state": DONE}
        if state["state"] in (DONE, RUNNING):
            return
        message = f"is {state['state']}: the same command goes on with it"
        if state["state"] == FAILED:
            message = f"has failed ({state.get('reason')}; log: {self.teacher.folder.log}): RETRY=1 tries it again"
        raise UserError(f"the teacher {self.teacher.spec.name} {message}")

    def _has_taught(self) -> bool:
        return self.teacher.folder.state()["state"] == DONE

    def _is_too_late(self) -> bool:
        return not self._is_here and self.deadline is not None and time.monotonic() > self.deadline
