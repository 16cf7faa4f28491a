"""Tune a method's hyper-parameters on a validation split of the training set. The test set stays closed.

Trials are added up to the number wanted: the same command continues a study that was stopped or killed.
"""

import argparse
import time

from rich.console import Console

from cskd import cli
from cskd.cli import results_dir, runs_dir, tracking_uri
from cskd.errors import UserError
from experiments.background import BackgroundTracking, Tracking
from experiments.display import Display
from experiments.environment import commit
from experiments.estimate import Estimator, disk_bytes, free_bytes
from experiments.execute import duration, say_tracking
from experiments.launch import Watcher, launch_local
from experiments.plan import PlannedRun
from experiments.run_folder import DONE
from experiments.tuning import outcome
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.setup import Subject, Wish, resolve
from experiments.tuning.space import DEFAULT
from experiments.tuning.study import COMPLETE, FAILED, GRID, Study, Trial, best_of, storage_address, storage_lost
from experiments.tuning.tuner import Tuner

TRIALS = 30
SMALL = 8  # a last batch of less than this part of the others has been seen to spoil a run


def main() -> int:
    options = _parser().parse_args()
    if options.workers < 1 or (options.trials is not None and options.trials < 1):
        raise UserError("WORKERS and TRIALS must be at least 1")
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f"TIMEOUT must be positive minutes, not {options.timeout:g}")
    console = Console()
    wish = Wish(
        dataset=options.dataset,
        method=options.method,
        architecture=options.architecture,
        profile=options.profile,
        space=options.space,
        objective=options.objective,
        seeds=options.seeds,
        overrides=tuple(options.overrides),
        name=options.study,
    )
    subject = resolve(wish, console)
    if options.prune and len(subject.objectives) > 1:
        raise UserError("PRUNE=1 needs a single objective: Optuna prunes by one value")
    sampler = GRID if subject.space.is_finite else options.sampler
    points = subject.space.grid(options.trials or TRIALS) if sampler == GRID else []
    count = min(options.trials or TRIALS, len(points)) if points else options.trials or TRIALS
    with Study(storage_address(), subject.name, runs_dir() / "studies" / subject.name) as study:
        study.open(subject.identity(), subject.space, subject.objectives, sampler)
        study.enqueue(points or subject.first_points())
        if options.retry:
            study.retry_failed()
        return _run(study, subject, count, options, console)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m experiments.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", default="cs-kd", help="default cs-kd")
    parser.add_argument("--architecture", help="default resnet18, or what the profile trains")
    parser.add_argument("--profile", help="paper, mini, demo: a profile of the recipe (default: its own)")
    parser.add_argument("--trials", type=int, help=f"of the whole study (default {TRIALS}; a finite space: all points)")
    parser.add_argument("--seeds", type=int, default=1, help="of each trial, whose mean counts (default 1)")
    parser.add_argument("--space", default=DEFAULT, help="a space of experiments/spaces/<method>.yaml")
    parser.add_argument("--objective", default="error", help=f"{', '.join(OBJECTIVES)}, or two, as error,ece")
    parser.add_argument("--sampler", default="gp", help="gp (default), tpe, random, or grid: a regular one")
    parser.add_argument("--prune", action="store_true", help="stop poor trials after the first learning-rate drop")
    parser.add_argument("--timeout", type=float, metavar="MINUTES", help="begin no trial after this time")
    parser.add_argument("--study", metavar="NAME", help="another name, to start anew beside an earlier study")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on a GPU of its own (default 1)")
    parser.add_argument("--retry", action="store_true", help="try the points of failed trials again")
    parser.add_argument("--dry-run", action="store_true", help="print the budget and train nothing")
    return parser


def _run(study: Study, subject: Subject, count: int, options: argparse.Namespace, console: Console) -> int:
    left = max(0, count - study.used()) + study.orphans()
    example = subject.runs(subject.recipe_point())[0]
    with console.status("measuring a training step on this machine"):
        seconds = Estimator().seconds_anew(example) if left else 0.0
    whole = left * len(subject.seeds) * seconds
    _say_budget(subject, study, count, left, seconds, whole / options.workers, console)
    needed, free = left * len(subject.seeds) * disk_bytes(example), free_bytes(runs_dir())
    if needed > free:
        raise UserError(f"{runs_dir()} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: set RUNS_DIR")
    if options.dry_run:
        return 0
    if not _train_teacher(subject.teacher(), console):
        console.print("stopped: the same command goes on where this one ended")
        return 130
    tracking = BackgroundTracking(lambda: _open_tracking(subject.name))
    bars = TrialDisplay(study, count, whole, seconds, console)
    tuner = Tuner(
        study,
        count,
        subject.runs,
        deadline=None if options.timeout is None else time.monotonic() + 60 * options.timeout,
        prune_after=subject.settings.schedule.milestones[0] if options.prune else None,
        ended=bars.trial_ended,
    )
    with storage_lost(storage_address()), tracking, bars as display:

        def moved(run) -> None:
            tuner.moved(run)
            display.moved(run)

        def ended(run, state: str) -> None:
            display.ended(run, state)
            tuner.ended(run, state)

        watcher = Watcher(display.started, moved, ended=ended, unwanted=tuner.unwanted)
        finished = launch_local(tuner.runs(), options.workers, watcher)
        trials = study.trials()
        outcome.write(subject, trials, commit(), results_dir() / "studies" / subject.name)
    return _summary(subject, tuner, study, count, finished, tracking, console)


def _train_teacher(run: PlannedRun | None, console: Console) -> bool:
    """Train the run that teaches the trials' runs, if there is one and it is not done. False: a stop was asked for."""
    if run is None or run.folder.state()["state"] == DONE:
        return True
    run.folder.create(run.spec)
    seconds = Estimator().seconds(run)
    with Display("teacher", 1, seconds, lambda run: seconds, console) as display:
        watcher = Watcher(display.started, display.moved, ended=display.ended)
        finished = launch_local([run], 1, watcher)
    state = run.folder.state()
    if finished and state["state"] != DONE:
        raise UserError(f"the teacher {run.spec.name} is {state['state']} ({state.get('reason', run.folder.log)})")
    return finished


def _open_tracking(name: str) -> Tracking:
    from experiments.tracking.studies import StudyTracking  # noqa: PLC0415 - tuning goes without MLflow

    return StudyTracking(tracking_uri(), storage_address(), name, runs_dir(), results_dir() / "studies" / name)


def _say_budget(subject: Subject, study: Study, count: int, left: int, seconds: float, whole: float, console) -> None:
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


def _summary(subject: Subject, tuner: Tuner, study: Study, count: int, finished: bool, tracking, console) -> int:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    trials = study.trials()
    states = [trial.state for trial in trials]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys([COMPLETE, *states])]
    say(f"{len(trials)} trials begun of {count}: {', '.join(parts)}.")
    for line in outcome.told(subject, trials):
        say(line)
    say_tracking(tracking, console)
    if not finished:
        say("stopped: the same command goes on where this one ended")
        return 130
    if tuner.gave_up:
        say(f"given up: {tuner.gave_up}")
        return 1
    if FAILED in states:
        say("failed trials count; RETRY=1 tries their points again")
    if study.used() < count:
        say("the time is over: the same command goes on")
    return 0 if COMPLETE in states else 1


if __name__ == "__main__":
    cli.run(main)
