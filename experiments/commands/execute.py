"""From a grid to results: data, plan, launch, tracking, summary. What every launching command does."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Column, Table

from cskd.data.store import Dataset
from cskd.utils.cli import STOPPED, check_choice, check_writable, data_dir, runs_dir, tracking_uri
from cskd.utils.errors import UserError
from experiments.config.datasets import is_prepared, open_data
from experiments.config.recipe import Settings
from experiments.launch.backends import BACKENDS
from experiments.launch.data_progress import prepare_with_progress
from experiments.launch.estimate import Estimator, disk_bytes, free_bytes
from experiments.launch.job import teacher_folder
from experiments.launch.loop import LaunchCallbacks, launch, submit
from experiments.launch.progress import Display, outcome
from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, MISSING, RUNNING
from experiments.runs.plan import Grid, Plan, PlannedRun, find_tuned, make_plan, settings_of
from experiments.tracking.uploader import Tracker, Uploader

MAX_WORKERS = 1000


@dataclass(frozen=True)
class LaunchOptions:
    """How a grid is to be launched; nothing here changes any number."""

    profile: str | None = None
    overrides: tuple[str, ...] = ()
    workers: int = 1
    launcher: str = "local"
    dry_run: bool = False
    retry: bool = False
    tuned: bool = False  # the hyper-parameters that tuning has found, in the place of the recipe's
    architectures: tuple[str, ...] = ()  # those that were asked for by name


def execute(grid_name: str, grid: Grid, wish: LaunchOptions) -> int:
    """Plan and run a grid. Returns the exit status: 0 when every run is done."""
    if not 1 <= wish.workers <= MAX_WORKERS:
        raise UserError(f"WORKERS must be from 1 to {MAX_WORKERS}, not {wish.workers}")
    check_choice("launcher", wish.launcher, BACKENDS)
    if not wish.dry_run:
        check_writable(RUNS_DIR=runs_dir())
    console = Console()
    profile, settings = settings_of(grid, wish.profile, wish.overrides)
    check_not_replaced(wish.architectures, profile, settings)
    tuned = find_tuned(grid, profile, settings) if wish.tuned else None
    datasets, absent = _datasets(grid, settings, wish.dry_run, console)
    plan, runs = make_plan(
        grid_name, grid, profile, settings, datasets, runs_dir(), overrides=wish.overrides, tuned=tuned
    )
    due = [run for run in runs if is_due(run, wish.retry)]
    seconds = _show_plan(plan, runs, due, absent, wish, console)
    if wish.dry_run:
        return 0
    # An address that cannot be used fails here; a server that is away does not.
    uploader = Uploader(lambda: _open_tracker(plan), news(console))
    for run in runs:
        run.folder.create(run.spec)
    for run in due:
        run.folder.discard_damaged()
    plan.save(runs_dir())
    backend = BACKENDS[wish.launcher](wish.workers)
    bars = Display("grid", len(due), sum(seconds.values()), lambda run: seconds[run.spec.run_key], console)
    with uploader, bars as display:
        if backend.detached:
            submit(due, backend)
            return 0
        queue = RunQueue(due, display.on_other_launch)

        def started(run: PlannedRun) -> None:
            uploader.watch(run.spec.run_key)
            display.started(run)

        def ended(run: PlannedRun, state: str) -> None:
            display.ended(run, state)
            queue.ended(run, state)

        callbacks = LaunchCallbacks(started, display.progressed, ended=ended)
        finished = launch(queue.ready(), backend, wish.workers, callbacks)
        if not finished:
            uploader.launch_stopped()
    return _summary(runs, uploader, finished, console)


def _open_tracker(plan: Plan) -> Tracker:
    from experiments.tracking.grids import GridTracker  # noqa: PLC0415 - training works without MLflow

    return GridTracker(tracking_uri(), plan.experiment, runs_dir())


def check_not_replaced(architectures: tuple[str, ...], profile: str, settings: dict[str, Settings]) -> None:
    """An architecture that was asked for by name and that the profile would quietly replace."""
    for name, one in settings.items():
        for asked in architectures:
            if one.trained(asked) != asked:
                raise UserError(
                    f"{name}: profile {profile} trains {one.trained(asked)}, not {asked}: "
                    f"ask for that one, or change it with SET=architectures.{asked}={asked}"
                )


def _datasets(
    grid: Grid, settings: dict[str, Settings], dry_run: bool, console: Console
) -> tuple[dict[str, Dataset], list[str]]:
    """(prepared datasets, names of those that a dry run leaves unprepared). All come before any training."""
    datasets, absent = {}, []
    for name in grid.datasets:
        data = settings[name].data
        if is_prepared(name, data, data_dir()):
            # also an incomplete copy: whoever prepared it has said so
            datasets[name] = open_data(name, data, data_dir())
        elif dry_run:
            absent.append(name)
        else:
            datasets[name] = prepare_with_progress(name, data, data_dir(), console)
    return datasets, absent


def is_due(run: PlannedRun, retry: bool) -> bool:
    """Whether a launch has to see to a run: it is not done, or damaged since, and has not failed unless that is to be
    tried again.
    """
    state = run.folder.state()["state"]
    if state == DONE:
        return run.folder.damage() is not None
    return state in (MISSING, INTERRUPTED, RUNNING) or (state == FAILED and retry)


def _show_plan(
    plan: Plan,
    runs: list[PlannedRun],
    due: list[PlannedRun],
    absent: list[str],
    wish: LaunchOptions,
    console: Console,
) -> dict[str, float]:
    """Print the whole grid with time and disk; returns the seconds estimated for each run that is due."""
    estimator = Estimator()
    with console.status("measuring a training step of each kind on this machine"):
        seconds = {run.spec.run_key: estimator.seconds(run) for run in due}
    columns = (Column("cell", overflow="fold"), "seeds", "done", "to do", "minutes a run")
    table = Table(*columns, title=plan.experiment, title_justify="left")
    for cell in plan.cells:
        own = [run for run in runs if run.spec.cell == cell.name]
        left = [run for run in own if run in due]
        done = sum(run.folder.state()["state"] == DONE for run in own)
        cost = f"{sum(seconds[run.spec.run_key] for run in left) / len(left) / 60:.1f}" if left else "-"
        seeds = " ".join(str(run.spec.seed) for run in own)
        table.add_row(cell.name, seeds, str(done), str(len(left)), cost)
    for name in absent:
        table.add_row(f"{name}/...", "-", "-", "-", "no data yet")
    console.print(table)
    minutes = sum(seconds.values()) / 60 / wish.workers
    needed, free = sum(disk_bytes(run) for run in due), free_bytes(runs_dir())
    if runs:
        console.print(
            f"{len(due)} of {len(runs)} runs to do, about {duration(minutes)} with {wish.workers} at once "
            f"(from a step measured here, input not counted), about {needed / 1e9:.1f} GB of disk "
            f"({free / 1e9:.1f} GB free).",
            highlight=False,
        )
    if absent:
        message = ", ".join(f"{name} (no data here: make data DATASET={name})" for name in absent)
        console.print(f"not counted: {message}", soft_wrap=True, highlight=False)
    if needed > free and not wish.dry_run:
        raise UserError(f"{runs_dir()} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: set RUNS_DIR")
    return seconds


def duration(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def _summary(runs: list[PlannedRun], uploader: Uploader, finished: bool, console: Console) -> int:
    """Say what is not done and how to go on."""
    states = {run.spec.run_key: run.folder.state()["state"] for run in runs}
    undone = [run for run in runs if states[run.spec.run_key] != DONE]
    console.print(f"{len(runs) - len(undone)} of {len(runs)} runs are done.", highlight=False)
    for run in undone:
        message = f"  {run.spec.name}: {outcome(run, states[run.spec.run_key])}"
        teacher = teacher_folder(run)
        if states[run.spec.run_key] == MISSING and teacher is not None and teacher.state()["state"] != DONE:
            message += f": its teacher, {run.spec.teacher.name}, is not trained"
        console.print(message, soft_wrap=True, highlight=False, markup=False)
    news(console)(uploader.summary())
    if not finished:
        console.print(STOPPED)
        return 130
    if any(state == FAILED for state in states.values()):
        console.print("RETRY=1 runs the failed ones again")
    return 1 if undone else 0


def news(console: Console) -> Callable[[str], None]:
    """Prints a line as it is, also while bars are shown."""
    return lambda message: console.print(message, soft_wrap=True, highlight=False, markup=False)
