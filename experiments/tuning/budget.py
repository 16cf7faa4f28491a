"""What a study still takes: trials, time and disk, with the run that teaches them."""

from dataclasses import dataclass

from rich.console import Console

from cskd.utils.cli import runs_dir
from cskd.utils.errors import UserError
from experiments.commands.execute import duration
from experiments.launch.estimate import Estimator, disk_bytes, free_bytes
from experiments.runs.plan import PlannedRun
from experiments.tuning.setup import StudyConfig

SMALL = 8  # a last batch of less than this part of the others has been seen to spoil a run


@dataclass(frozen=True)
class Budget:
    """Trials, and estimates of seconds and bytes."""

    count: int  # trials of the whole study
    left: int  # of them to do
    seeds: int  # runs of a trial
    run_seconds: float  # of one of these
    teacher: PlannedRun | None  # that is to be trained before them
    teacher_seconds: float
    disk: int  # of everything that is to do

    @property
    def seconds(self) -> float:
        """Of everything that is to do, one run at a time."""
        return self.teacher_seconds + self.left * self.seeds * self.run_seconds

    def seconds_of(self, run: PlannedRun) -> float:
        is_teacher = self.teacher is not None and run.spec.run_key == self.teacher.spec.run_key
        return self.teacher_seconds if is_teacher else self.run_seconds

    def wall_seconds(self, workers: int) -> float:
        """With so many runs at once: the teacher is alone, all others wait for it."""
        return self.teacher_seconds + (self.seconds - self.teacher_seconds) / workers


def make_budget(subject: StudyConfig, count: int, left: int, teacher: PlannedRun | None, console: Console) -> Budget:
    """Measure what a study takes on this machine. teacher: one that is to be trained, if there is."""
    example, seeds = subject.runs(subject.recipe_point())[0], len(subject.seeds)
    estimator = Estimator()
    with console.status("measuring a training step on this machine"):
        run_seconds = estimator.seconds_from_start(example) if left else 0.0
        teacher_seconds = estimator.seconds(teacher) if teacher else 0.0
    disk = left * seeds * disk_bytes(example) + (disk_bytes(teacher) if teacher else 0)
    return Budget(count, left, seeds, run_seconds, teacher, teacher_seconds, disk)


def check_disk(budget: Budget) -> None:
    free = free_bytes(runs_dir())
    if budget.disk > free:
        message = f"{free / 1e9:.1f} GB free, {budget.disk / 1e9:.1f} GB are needed"
        raise UserError(f"{runs_dir()} has {message}: set RUNS_DIR")


def say_budget(subject: StudyConfig, budget: Budget, workers: int, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    message = ", ".join(f"{name} {_axis(axis)}" for name, axis in subject.space.parameters.items())
    seeds = f"{budget.seeds} seed{'s' if budget.seeds > 1 else ''}"
    say(
        f"study {subject.name}: {subject.method} on {subject.dataset}, {subject.architecture}, profile "
        f"{subject.profile}; {message}\n"
        f"objective: {' and '.join(subject.objectives)} on {subject.validation_images} of "
        f"{subject.train_images + subject.validation_images} training images, after the last epoch; test set closed"
    )
    if budget.teacher is not None:
        minutes = duration(budget.teacher_seconds / 60)
        say(f"its teacher, {budget.teacher.spec.name}, is trained first: about {minutes}")
    say(
        f"{budget.left} of {budget.count} trials to do x {seeds} x about {duration(budget.run_seconds / 60)}: "
        f"about {duration(budget.wall_seconds(workers) / 60)}{' with the teacher' if budget.teacher else ''} "
        f"(from a step measured here, input not counted)"
    )
    last = subject.train_images % subject.settings.batch_size
    if 0 < last < subject.settings.batch_size / SMALL:
        say(
            f"note: each epoch's last batch has {last} of {subject.settings.batch_size} images; so small a one "
            "disturbs the training at a high learning rate: another SET=validation_fraction=... leaves more"
        )


def _axis(axis) -> str:
    if axis.choices:
        return "in {" + ", ".join(f"{value:g}" for value in axis.choices) + "}"
    return f"in [{axis.low:g}, {axis.high:g}]{' (log)' if axis.log else ''}"
