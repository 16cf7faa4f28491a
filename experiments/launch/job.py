"""A job: what a backend starts to train one run."""

import sys
from dataclasses import dataclass

from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun


@dataclass(frozen=True)
class Job:
    """The command that trains a run, its folder, and the runs that must be done before it starts."""

    command: tuple[str, ...]
    folder: RunFolder
    needs: tuple[RunFolder, ...] = ()


def make_job(run: PlannedRun) -> Job:
    teacher = teacher_folder(run)
    command = (sys.executable, "-m", "experiments", "worker", str(run.folder.path))
    return Job(command, run.folder, (teacher,) if teacher else ())


def teacher_folder(run: PlannedRun) -> RunFolder | None:
    """Return the folder of the run's teacher, None for a run without a teacher."""
    return RunFolder.of(run.spec.teacher, run.folder.path.parent) if run.spec.teacher else None
