"""The cost of a study's remaining trials, with the run of their teacher."""

from dataclasses import dataclass

from experiments.launch.estimate import Estimator, disk_bytes
from experiments.runs.plan import PlannedRun
from experiments.tuning.config import StudyConfig

# A last batch smaller than this fraction of a full batch disturbed training at a high learning rate.
MIN_LAST_BATCH = 1 / 8


@dataclass(frozen=True)
class Budget:
    """The remaining work of a study, with estimated seconds and bytes."""

    trials: int
    runs: int  # of these trials
    run_seconds: float
    teacher: PlannedRun | None  # to train before the trials
    teacher_seconds: float
    disk_bytes: int

    def seconds(self, workers: int = 1) -> float:
        """Return the seconds with ``workers`` runs at once. All trials wait for the teacher."""
        return self.teacher_seconds + self.runs * self.run_seconds / workers

    def seconds_of(self, run: PlannedRun) -> float:
        return self.teacher_seconds if run is self.teacher else self.run_seconds


def estimate_budget(config: StudyConfig, trials: int, workers: int) -> Budget:
    """Measure a training step on this machine and return the cost of ``trials`` trials. workers: runs at once."""
    teacher = config.teacher() if trials else None
    if teacher is not None and not teacher.is_pending(retry=True):
        teacher = None
    example, runs, estimator = config.runs({})[0], trials * len(config.seeds), Estimator(workers)
    run_seconds = estimator.seconds_from_start(example) if trials else 0.0
    teacher_seconds = estimator.seconds(teacher) if teacher else 0.0
    disk = runs * disk_bytes(example) + (disk_bytes(teacher) if teacher else 0)
    return Budget(trials, runs, run_seconds, teacher, teacher_seconds, disk)


def last_batch_warning(config: StudyConfig) -> str:
    """Return a warning if the last batch of an epoch is very small, else ""."""
    size = config.settings.batch_size
    last = config.train_images % size
    if not 0 < last < MIN_LAST_BATCH * size:
        return ""
    return (
        f"warning: the last batch of each epoch has {last} of {size} images, which disturbs training at a high "
        "learning rate: change it with SET=validation_fraction=..."
    )
