"""Run a study. Shared by ``tune`` and ``ablate``."""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

from rich.console import Console

from cskd.methods import canonical_name
from cskd.utils.cli import STOPPED, check_writable, data_dir, results_dir, runs_dir, tracking_uri
from cskd.utils.databases import print_address
from cskd.utils.errors import UserError
from cskd.utils.numbers import duration_text
from experiments.commands.study_workers import check_storage_is_shared, submit_workers
from experiments.config.datasets import is_prepared
from experiments.launch.backends import Backend, backend_class
from experiments.launch.data_progress import preparation_lines
from experiments.launch.loop import LaunchCallbacks, launch
from experiments.launch.options import MAX_WORKERS, add_launch_arguments
from experiments.launch.plan_table import check_disk
from experiments.launch.progress import Display, line_printer
from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, RUNNING
from experiments.runs.plan import PlannedRun
from experiments.runs.source import describe_source
from experiments.tracking.uploader import Tracker, Uploader
from experiments.tuning.budget import Budget, estimate_budget, last_batch_warning
from experiments.tuning.config import DEFAULT_TRIALS, StudyConfig, StudyOptions, make_study_config
from experiments.tuning.results import summary_lines, write_results
from experiments.tuning.storage import load_study, storage_address, storage_lost
from experiments.tuning.study import GRID, Study
from experiments.tuning.trial import COMPLETE, Trial, best_of, format_objectives, format_point
from experiments.tuning.tuner import Tuner


def add_studies_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of one or several studies."""
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--architecture", help="default resnet18, or the profile's")
    seeds = "seeds of each trial; its result is their mean (default 1)"
    parser.add_argument("--seeds", type=int, default=1, help=seeds)
    add_launch_arguments(parser)


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of one study."""
    add_studies_arguments(parser)
    parser.add_argument("--method", type=canonical_name, default="cs-kd", help="default cs-kd")
    parser.add_argument("--timeout", type=float, metavar="MINUTES", help="start no trial after this time")
    parser.add_argument("--study", dest="name", help="another name, for a new study beside an earlier one")


def run_study(options: StudyOptions) -> int:
    """Start or continue a study and return the exit status: 0 if a trial is complete and none was interrupted.

    With a detached backend, submit its workers and return 0.
    """
    console, detached = Console(), backend_class(options.launcher).detached
    if detached:
        check_storage_is_shared(options.launcher)
    if not options.dry_run:
        check_writable(RUNS_DIR=runs_dir(), RESULTS_DIR=results_dir())
    config = make_study_config(options, console)
    sampler = GRID if config.space.is_finite else options.sampler
    # Trials at once do not learn from each other, so their number must not depend on the machine.
    options = options.with_workers([config.settings], maximum=MAX_WORKERS if sampler == GRID else options.seeds)
    points = config.space.grid(options.trials or DEFAULT_TRIALS) if sampler == GRID else []
    max_trials = options.trials or len(points) or DEFAULT_TRIALS
    max_trials = min(max_trials, len(points)) if points else max_trials
    study = Study(storage_address(), config.name, runs_dir() / "studies" / config.name)
    if options.dry_run:
        if is_prepared(options.dataset, config.settings.data, data_dir()):  # otherwise the data's digest is unknown
            study.open_read_only(config.identity())
        _show_budget(study, config, max_trials, options, console)
        for line in preparation_lines({options.dataset: config.settings.data}, data_dir()):
            line_printer(console)(line)
        return 0
    with study:
        study.open(config.identity(), config.space, config.objectives, sampler)
        study.enqueue(points or config.first_points())
        if options.retry:
            study.retry_failed()
        if detached:
            submit_workers(config, options, backend_class(options.launcher)(options.workers))
            return 0
        return _run(study, config, max_trials, options, console)


def _show_budget(study: Study, config: StudyConfig, max_trials: int, options: StudyOptions, console: Console) -> Budget:
    """Estimate the budget, check it and the teacher, and print both."""
    remaining = study.remaining(max_trials, retry=options.retry)
    with console.status("measuring a training step on this machine"):
        budget = estimate_budget(config, remaining, options.workers)
    if budget.teacher is not None and budget.teacher.folder.state()["state"] == FAILED and not options.retry:
        raise _teacher_error(budget.teacher)
    print_line = line_printer(console)
    space = ", ".join(f"{name} {axis.describe()}" for name, axis in config.space.parameters.items())
    print_line(
        f"study {config.name}: {options.method} on {options.dataset}, {config.architecture}, profile {config.profile}; "
        f"{space}"
    )
    held_out = f"of {config.train_images + config.validation_images} training images"
    images = "unused training images" if config.settings.validate_on == "unused" else held_out
    print_line(
        f"objective: {' and '.join(config.objectives)} on {config.validation_images} {images}, "
        "after the last epoch; test set closed"
    )
    if budget.teacher is not None:
        minutes = duration_text(budget.teacher_seconds)
        print_line(f"its teacher, {budget.teacher.spec.name}, is trained first: about {minutes}")
    seeds = f"{options.seeds} seed{'s' if options.seeds > 1 else ''}"
    run_time = duration_text(budget.run_seconds)
    total_time = duration_text(budget.seconds(options.workers))
    print_line(
        f"{budget.trials} of {max_trials} trials to do x {seeds} x about {run_time}: "
        f"about {total_time}{' with the teacher' if budget.teacher else ''} "
        "(from a measured training step, without start-up and data loading)"
    )
    warning = last_batch_warning(config)
    if warning:
        print_line(warning)
    check_disk(budget.disk_bytes)
    return budget


def _run(study: Study, config: StudyConfig, max_trials: int, options: StudyOptions, console: Console) -> int:
    deadline = None if options.timeout is None else time.monotonic() + 60 * options.timeout
    budget = _show_budget(study, config, max_trials, options, console)
    results = results_dir() / "studies" / config.name
    backend = backend_class(options.launcher)(options.workers)  # its process imports torch while the store is opened
    print_address("MLFLOW_TRACKING_URI", tracking_uri())
    print_address("OPTUNA_STORAGE", storage_address())
    # An invalid address fails here; an unreachable server does not.
    uploader = Uploader(lambda: _open_tracker(config.name), line_printer(console))
    display = StudyDisplay(study, max_trials, budget, console)
    tuner = Tuner(
        study,
        max_trials,
        config.runs,
        deadline=deadline,
        prune_after=config.settings.schedule.milestones[0] if options.prune else None,
        on_trial_end=display.trial_ended,
    )
    teacher = budget.teacher
    with storage_lost(storage_address()), uploader, display:
        finished = teacher is None or _train_teacher(teacher, deadline, backend, display)
        if finished and (teacher is None or teacher.folder.state()["state"] == DONE):
            callbacks = display.callbacks(tuner.ended, tuner.should_stop)
            finished = launch(tuner.runs(), backend, callbacks)
        if not finished:
            uploader.launch_stopped()
        write_results(config, storage_address(), study.trials(), describe_source(), results)
        study.save_note(summary_lines(config, study.trials()))
    if finished and teacher is not None and teacher.folder.state()["state"] not in (DONE, RUNNING):
        raise _teacher_error(teacher)
    return _summary(config, tuner, study, finished, uploader, console)


def _train_teacher(teacher: PlannedRun, deadline: float | None, backend: Backend, display: "StudyDisplay") -> bool:
    """Train the teacher, or wait for another process that trains it, until the deadline. Return False after a stop."""
    teacher.folder.create(teacher.spec)
    teacher.folder.discard_damaged()
    queue = RunQueue([teacher], display.on_other_launch)

    def in_time(run: PlannedRun | None) -> bool:  # None: another process trains it
        return run is not None or deadline is None or time.monotonic() < deadline

    return launch(itertools.takewhile(in_time, queue.ready()), backend, display.callbacks(queue.ended))


def _teacher_error(teacher: PlannedRun) -> UserError:
    state = teacher.folder.state()
    advice = "RETRY=1 trains it again" if state["state"] == FAILED else "repeat the command to continue it"
    return UserError(f"teacher {teacher.spec.name} {state['reason']} (log: {teacher.folder.log}): {advice}")


def _open_tracker(name: str) -> Tracker:
    from experiments.tracking.studies import StudyTracker  # noqa: PLC0415 - tuning works without MLflow

    load = partial(load_study, storage_address(), name)
    return StudyTracker(tracking_uri(), name, load, runs_dir(), results_dir() / "studies" / name)


class StudyDisplay(Display):
    """The progress bars of a grid, with the number of trials and the best so far."""

    def __init__(self, study: Study, max_trials: int, budget: Budget, console: Console):
        self.study, self.trials = study, study.trials()
        super().__init__("study", max_trials, budget.seconds(), budget.seconds_of, console)

    def count(self) -> str:
        return f"{sum(trial.ended is not None for trial in self.trials)}/{self.total} trials"

    def best(self) -> str:
        best = best_of(self.trials)
        if best is None:
            return ""
        value = format_objectives(self.study.objectives, best.values, best.standard_errors)
        return f"best {value}: {format_point(best.parameters)}"

    def callbacks(
        self, ended: Callable[[PlannedRun, str], None], should_stop: Callable[[PlannedRun], bool] = lambda run: False
    ) -> LaunchCallbacks:
        """Return the callbacks that show the runs, and then tell ``ended``."""

        def show_and_end(run: PlannedRun, state: str) -> None:
            self.ended(run, state)
            ended(run, state)

        return LaunchCallbacks(self.started, self.progressed, should_stop, show_and_end)

    def trial_ended(self, trial: Trial, result: str) -> None:
        self.trials = self.study.trials()
        self.print_line(f"trial {trial.number} ({format_point(trial.parameters)}): {result}")


def _summary(
    config: StudyConfig, tuner: Tuner, study: Study, finished: bool, uploader: Uploader, console: Console
) -> int:
    print_line = line_printer(console)
    trials = study.trials()
    states = [trial.state for trial in trials]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys([COMPLETE, *states])]
    print_line(f"{len(trials)} of {tuner.max_trials} trials started: {', '.join(counts)}.")
    for line in summary_lines(config, trials):
        print_line(line)
    print_line(f"tables and figures: {results_dir() / 'studies' / config.name}")
    print_line(uploader.summary())
    if uploader.link:
        print_line(f"in MLflow: {uploader.link}")
    if not finished:
        print_line(STOPPED)
        return 130
    if tuner.gave_up:
        print_line(f"given up: {tuner.gave_up}")
        return 1
    if tuner.interrupted:
        print_line(f"{tuner.interrupted} of them interrupted: repeat the command to continue them")
    if any(trial.reason for trial in trials):
        print_line("failed trials count as started; RETRY=1 tries their points again")
    if not tuner.is_complete:
        print_line("the timeout is over: repeat the command to continue")
    return 0 if COMPLETE in states and not tuner.interrupted else 1
