"""The cost of a study's remaining trials, with the run of their teacher."""

from dataclasses import dataclass

from cskd.utils.cli import runs_dir
from cskd.utils.errors import UserError
from experiments.launch.estimate import Estimator, disk_bytes, free_bytes
from experiments.runs.folder import DONE
from experiments.runs.plan import PlannedRun
from experiments.tuning.config import StudyConfig

# A last batch smaller than this part of a full one was seen to spoil training at a high learning rate.
MIN_LAST_BATCH = 1 / 8


@dataclass(frozen=True)
class Budget:
    """Number of trials, with estimated seconds and bytes."""

    max_trials: int  # of the whole study
    remaining: int  # trials
    seeds: int  # runs of a trial
    run_seconds: float  # of one run of a trial
    teacher: PlannedRun | None  # to train before the trials
    teacher_seconds: float
    disk_bytes: int  # of everything that remains

    @property
    def seconds(self) -> float:
        return self.wall_seconds(workers=1)

    def wall_seconds(self, workers: int) -> float:
        """Return the seconds with ``workers`` runs at once. All trials wait for the teacher."""
        return self.teacher_seconds + self.remaining * self.seeds * self.run_seconds / workers

    def seconds_of(self, run: PlannedRun) -> float:
        return self.teacher_seconds if run is self.teacher else self.run_seconds


def estimate_budget(config: StudyConfig, max_trials: int, remaining: int) -> Budget:
    """Measure a training step on this machine and return the study's budget."""
    example, seeds = config.runs(config.recipe_point())[0], len(config.seeds)
    teacher = config.teacher() if remaining else None
    if teacher is not None and teacher.folder.state()["state"] == DONE:
        teacher = None
    estimator = Estimator()
    return Budget(
        max_trials,
        remaining,
        seeds,
        run_seconds=estimator.seconds_from_start(example) if remaining else 0.0,
        teacher=teacher,
        teacher_seconds=estimator.seconds(teacher) if teacher else 0.0,
        disk_bytes=remaining * seeds * disk_bytes(example) + (disk_bytes(teacher) if teacher else 0),
    )


def check_disk(budget: Budget) -> None:
    free = free_bytes(runs_dir())
    if budget.disk_bytes > free:
        needed = f"{free / 1e9:.1f} GB free, {budget.disk_bytes / 1e9:.1f} GB are needed"
        raise UserError(f"{runs_dir()} has {needed}: set RUNS_DIR")


def last_batch_warning(config: StudyConfig) -> str:
    """Return a warning if an epoch's last batch is very small, else ""."""
    size = config.settings.batch_size
    last = config.train_images % size
    if not 0 < last < MIN_LAST_BATCH * size:
        return ""
    return (
        f"warning: the last batch of each epoch has {last} of {size} images, which disturbs training at a high "
        "learning rate: change it with SET=validation_fraction=..."
    )
