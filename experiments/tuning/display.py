"""What a user sees of a study: its budget, and bars while its trials go on."""

from rich.console import Console

from experiments.display import Display
from experiments.estimate import Estimator
from experiments.execute import duration
from experiments.run_folder import DONE
from experiments.tuning.setup import Subject
from experiments.tuning.study import Study, Trial, best_of

SMALL = 8  # a last batch of less than this part of the others has been seen to spoil a run


def say_budget(subject: Subject, study: Study, count: int, left: int, seconds: float, whole: float, console) -> None:
    told = ", ".join(f"{name} {_axis(axis)}" for name, axis in subject.space.parameters.items())
    seeds = f"{len(subject.seeds)} seed{'s' if len(subject.seeds) > 1 else ''}"
    console.print(
        f"study {subject.name}: {subject.method} on {subject.dataset}, {subject.architecture}, profile "
        f"{subject.profile}; {told}\n"
        f"objective: {' and '.join(subject.objectives)} on {subject.validation_images} of "
        f"{subject.train_images + subject.validation_images} training images, after the last epoch; test set closed\n"
        f"{left} of {count} trials to do x {seeds} x about {duration(seconds / 60)}: about {duration(whole / 60)} "
        f"(from a step measured here, input not counted)",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    teacher = subject.teacher()
    if teacher is not None and teacher.folder.state()["state"] != DONE:
        minutes = duration(Estimator().seconds(teacher) / 60)
        told = f"its teacher, {teacher.spec.name}, is trained first: about {minutes} more"
        console.print(told, soft_wrap=True, highlight=False)
    last = subject.train_images % subject.settings.batch_size
    if 0 < last < subject.settings.batch_size / SMALL:
        console.print(
            f"note: each epoch's last batch has {last} of {subject.settings.batch_size} images; so small a one "
            "disturbs the training at a high learning rate: another SET=validation_fraction=... leaves more",
            soft_wrap=True,
            highlight=False,
        )


def _axis(axis) -> str:
    if axis.choices:
        return "in {" + ", ".join(f"{value:g}" for value in axis.choices) + "}"
    return f"in [{axis.low:g}, {axis.high:g}]{' (log)' if axis.log else ''}"


class TrialDisplay(Display):
    """The bars of a grid, with the trials and the best so far over the whole."""

    def __init__(self, study: Study, count: int, whole: float, seconds: float, console: Console):
        self.study, self.count = study, count
        self.trials = study.trials()
        super().__init__("study", count, whole, lambda run: seconds, console)

    def heading(self) -> str:
        done = sum(trial.state != "running" for trial in self.trials)
        best = best_of(self.trials)
        told = f", best {told_point(best.parameters)}: {best.values[0]:.4g}" if best else ""
        return f"{done}/{self.count} trials{told}"

    def trial_ended(self, trial: Trial, told: str) -> None:
        self.trials = self.study.trials()
        line = f"trial {trial.number} ({told_point(trial.parameters)}): {told}"
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def told_point(point: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in point.items())
