"""From a wish to a study's results: trials, tracking, summary. What tuning and ablation do."""

import math
import time
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from cskd.utils.cli import STOPPED, check_choice, check_writable, results_dir, runs_dir, tracking_uri
from cskd.utils.errors import UserError
from experiments.commands.execute import MAX_WORKERS, news
from experiments.launch.backends import BACKENDS
from experiments.launch.loop import LaunchCallbacks, launch
from experiments.runs.environment import commit
from experiments.runs.plan import PlannedRun
from experiments.tracking.uploader import Tracker, Uploader
from experiments.tuning import outcome
from experiments.tuning.budget import Budget, check_disk, make_budget, say_budget
from experiments.tuning.display import TrialDisplay
from experiments.tuning.samplers import DEFAULT_SAMPLER, SAMPLERS
from experiments.tuning.setup import LaunchOptions, StudyConfig, resolve
from experiments.tuning.storage import load_study, storage_address, storage_lost
from experiments.tuning.study import GRID, Study
from experiments.tuning.teaching import Teaching
from experiments.tuning.trial import COMPLETE, FAILED
from experiments.tuning.tuner import Tuner

TRIALS = 30
MAX_TRIALS = 100_000


@dataclass(frozen=True)
class Launch:
    """How a study is to be launched."""

    trials: int | None = None  # of the whole study; None: TRIALS, or all points of a finite space
    sampler: str = DEFAULT_SAMPLER
    prune: bool = False
    timeout: float | None = None  # minutes after which no trial begins
    workers: int = 1
    retry: bool = False
    dry_run: bool = False

    def __post_init__(self):
        check_choice("sampler", self.sampler, {**SAMPLERS, GRID: None})
        for name, most in (("workers", MAX_WORKERS), ("trials", MAX_TRIALS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"{name.upper()} must be from 1 to {most}, not {value}")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise UserError(f"TIMEOUT must be positive minutes, not {self.timeout:g}")


def execute(wish: LaunchOptions, launch: Launch) -> int:
    """Begin or continue a study. Returns the exit status: 0 when it has all its trials and one of them is complete."""
    console = Console()
    if not launch.dry_run:
        check_writable(RUNS_DIR=runs_dir(), RESULTS_DIR=results_dir())
    subject = resolve(wish, console, prepare=not launch.dry_run)
    if launch.prune and len(subject.objectives) > 1:
        raise UserError("PRUNE=1 needs a single objective: Optuna prunes by one value")
    sampler = GRID if subject.space.is_finite else launch.sampler
    points = subject.space.grid(launch.trials or TRIALS) if sampler == GRID else []
    count = min(launch.trials or len(points), len(points)) if points else launch.trials or TRIALS
    study = Study(storage_address(), subject.name, runs_dir() / "studies" / subject.name)
    if launch.dry_run:
        study.look(subject.identity())
        _plan(study, subject, count, launch, console)
        return 0
    with study:
        study.open(subject.identity(), subject.space, subject.objectives, sampler)
        study.enqueue(points or subject.first_points())
        if launch.retry:
            study.retry_failed()
        return _run(study, subject, count, launch, console)


def _plan(
    study: Study, subject: StudyConfig, count: int, launch: Launch, console: Console
) -> tuple[Budget, Teaching, float | None]:
    """(what is to do, its teacher, deadline as time.monotonic()), said and checked against the disk."""
    left = study.left(count, retry=launch.retry)
    deadline = None if launch.timeout is None else time.monotonic() + 60 * launch.timeout
    teacher, taught = subject.teacher() if left else None, subject.runs(subject.recipe_point())[0]
    teaching = Teaching(teacher, taught, retry=launch.retry, deadline=deadline)
    teaching.check_not_failed()
    budget = make_budget(subject, count, left, teaching.teacher, console)
    say_budget(subject, budget, launch.workers, console)
    check_disk(budget)
    return budget, teaching, deadline


def _run(study: Study, subject: StudyConfig, count: int, options: Launch, console: Console) -> int:
    budget, teaching, deadline = _plan(study, subject, count, options, console)
    # An address that cannot be used fails here; a server that is away does not.
    uploader = Uploader(lambda: _open_tracker(subject.name), news(console))
    bars = TrialDisplay(study, budget, console)
    tuner = Tuner(
        study,
        count,
        subject.runs,
        deadline=deadline,
        prune_after=subject.settings.schedule.milestones[0] if options.prune else None,
        ended=bars.trial_ended,
    )
    with storage_lost(storage_address()), uploader, bars as display:

        def moved(run: PlannedRun) -> None:
            if not teaching.is_of(run):
                tuner.moved(run)
            display.progressed(run)

        def unwanted(run: PlannedRun) -> bool:
            return not teaching.is_of(run) and tuner.unwanted(run)

        def ended(run: PlannedRun, state: str) -> None:
            display.ended(run, state)
            if teaching.is_of(run):
                teaching.ended(state)
            else:
                tuner.ended(run, state)

        callbacks = LaunchCallbacks(display.started, moved, unwanted, ended)
        backend = BACKENDS["local"](options.workers)
        finished = launch(teaching.before(tuner.runs()), backend, options.workers, callbacks)
        if not finished:
            uploader.launch_stopped()
        outcome.write(subject, study.trials(), commit(), results_dir() / "studies" / subject.name)
    if finished:
        teaching.check_trained()
    return _summary(subject, tuner, study, count, finished, uploader, console)


def _open_tracker(name: str) -> Tracker:
    from experiments.tracking.studies import StudyTracker  # noqa: PLC0415 - tuning works without MLflow

    load = partial(load_study, storage_address(), name)
    return StudyTracker(tracking_uri(), name, load, runs_dir(), results_dir() / "studies" / name)


def _summary(subject: StudyConfig, tuner: Tuner, study: Study, count: int, finished: bool, uploader, console) -> int:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    trials = study.trials()
    states = [trial.state for trial in trials]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys([COMPLETE, *states])]
    say(f"{len(trials)} trials begun of {count}: {', '.join(parts)}.")
    for line in outcome.message(subject, trials):
        say(line)
    say(f"tables and figures: {results_dir() / 'studies' / subject.name}")
    say(uploader.summary())
    if not finished:
        say(STOPPED)
        return 130
    if tuner.gave_up:
        say(f"given up: {tuner.gave_up}")
        return 1
    if tuner.interrupted:
        say(f"{tuner.interrupted} of them interrupted: the same command goes on with them")
    if FAILED in states:
        say("failed trials count; RETRY=1 tries their points again")
    if study.used() < count:
        say("the time is over: the same command goes on")
    return 0 if COMPLETE in states and not tuner.interrupted else 1
