"""Run a grid: datasets x methods x seeds. It prints the plan, and skips runs that are done."""

import subprocess
import sys
import time

from rich.console import Console

from cskd.data.store import Dataset
from cskd.evaluate.metrics import TRACKED
from cskd.utils.cli import STOPPED, Parser, check_writable, data_dir, results_dir, runs_dir, tracking_uri
from cskd.utils.databases import print_address
from cskd.utils.errors import UserError, check_choice, one_line
from cskd.utils.integrity import write_json
from cskd.utils.numbers import duration_text
from experiments.config.datasets import expected_data, is_prepared, open_data
from experiments.config.grid import Grid, check_not_replaced, grid_names, load_grid, load_grid_settings, load_tuned
from experiments.config.settings import Data
from experiments.launch.backends import Backend, backend_class
from experiments.launch.data_progress import preparation_lines, prepare_with_progress
from experiments.launch.loop import LaunchCallbacks, launch, submit
from experiments.launch.options import GridOptions, add_grid_arguments, method_or_all, seed_number
from experiments.launch.plan_table import print_plan
from experiments.launch.progress import Display, line_printer, outcome
from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, MISSING
from experiments.runs.plan import PlannedRun, make_plan
from experiments.runs.stored_plan import Plan
from experiments.tracking.uploader import Tracker, Uploader

NEXT = """What to do next:
  make ui        shows the runs in MLflow{link}
  make report    writes every table, figure and verdict into one page"""
AFTER_DEMO = """
  make reproduce-table1 PROFILE=mini DATASETS=cifar100
                 trains on real images; on a CPU, a run takes minutes"""


def main() -> int:
    parser = Parser(prog="python -m experiments grid", description=__doc__)
    parser.add_argument("grid", help=f"one of {', '.join(grid_names())}")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="replace the grid's datasets")
    parser.add_argument("--methods", type=method_or_all, nargs="+", metavar="NAME", help="replace the grid's")
    parser.add_argument("--seeds", nargs="+", type=seed_number, metavar="N", help="replace the grid's seeds")
    parser.add_argument(
        "--tables",
        nargs="*",
        metavar="NAME",
        help="make the experiment's tables afterwards ('python -m analysis tables'), and print these",
    )
    add_grid_arguments(parser)
    arguments = parser.parse_args()
    grid = load_grid(
        arguments.grid,
        datasets=arguments.datasets,
        architectures=arguments.architectures,
        methods=arguments.methods,
        seeds=arguments.seeds,
    )
    options = GridOptions.from_arguments(arguments)
    for name in options.tables or ():
        check_choice("table", name, [metric.short_name for metric in TRACKED])
    if not options.dry_run:
        check_writable(RESULTS_DIR=results_dir())  # of the tables
    return launch_grid(arguments.grid, grid, options)


def launch_grid(grid_name: str, grid: Grid, options: GridOptions) -> int:
    """Launch a grid and return the exit status: 0 if every run is done."""
    if not options.dry_run:
        check_writable(RUNS_DIR=runs_dir())
    console = Console()
    profile, settings = load_grid_settings(grid, options.profile, options.overrides)
    options = options.with_workers(settings.values())
    check_not_replaced(options.architectures, profile, settings)
    tuned = load_tuned(grid, profile, settings) if options.tuned else None
    sections = {name: settings[name].data for name in grid.datasets}
    datasets = _open_datasets(sections, options, console)
    grid = grid.model_copy(update={"datasets": [name for name in grid.datasets if name in datasets or options.dry_run]})
    plan, runs = make_plan(
        grid_name, grid, profile, settings, datasets, runs_dir(), overrides=options.overrides, tuned=tuned
    )
    pending = [run for run in runs if run.is_pending(options.retry)]
    seconds = print_plan(plan, runs, pending, options, console)
    if options.dry_run:
        for line in preparation_lines(sections, data_dir()):
            line_printer(console)(line)
        return 0
    backend = backend_class(options.launcher)(options.workers)  # its process imports torch while the store is opened
    print_address("MLFLOW_TRACKING_URI", tracking_uri())
    # An invalid address fails here; an unreachable server does not.
    uploader = Uploader(lambda: _open_tracker(plan), line_printer(console))
    for run in runs:
        run.folder.create(run.spec)
    for run in pending:
        run.folder.discard_damaged()
    plan.save(runs_dir())
    if backend.detached:
        submit(pending, backend)
        return 0
    began = time.monotonic()
    with uploader:
        finished = _train(pending, seconds, backend, uploader, console)
    if options.tracking_cost is not None:
        write_json(options.tracking_cost, {"cpu_seconds": uploader.cpu_seconds, "problem": uploader.problem})
    status = _print_summary(runs, uploader, finished, time.monotonic() - began, console)
    if finished and options.tables is not None:
        made = _make_tables(plan, options.tables)  # also if runs failed: the tables name them
        advice = NEXT.format(link=uploader.link and f":\n                 {uploader.link}")
        line_printer(console)(advice + (AFTER_DEMO if plan.profile == "demo" else ""))
        return status or made
    return status


def _make_tables(plan: Plan, shown: tuple[str, ...]) -> int:
    """Make the tables of the plan's experiment, whatever else was launched meanwhile. Return the exit status."""
    sys.stdout.flush()
    command = [sys.executable, "-m", "analysis", "tables", "--experiment", plan.experiment]
    return subprocess.run([*command, *(["--show", *shown] if shown else [])], check=False).returncode


def _open_datasets(sections: dict[str, Data], options: GridOptions, console: Console) -> dict[str, Dataset]:
    """Return the datasets, and prepare them first if needed. A dry run plans with their official numbers instead.

    Raises UserError if some cannot be had, unless the options leave them out and others remain.
    """
    datasets, missing = {}, {}
    for name, data in sections.items():
        try:
            if is_prepared(name, data, data_dir()):
                datasets[name] = open_data(name, data, data_dir())
            elif not options.dry_run:
                datasets[name] = prepare_with_progress(name, data, data_dir(), console)
            elif (expected := expected_data(name, data, data_dir())) is not None:
                datasets[name] = expected
        except UserError as error:
            missing[name] = error
    if len(missing) == len(sections) == 1:
        raise next(iter(missing.values()))
    for name, error in missing.items():
        print(f"{name} cannot be had: {one_line(error)}", file=sys.stderr)
    if missing and not (datasets and options.skip_missing):
        others = f", or repeat the command with SKIP_MISSING=1, which runs {', '.join(datasets)}" if datasets else ""
        raise UserError(f"{', '.join(missing)}: do as the lines above say{others}")
    return datasets


def _open_tracker(plan: Plan) -> Tracker:
    from experiments.tracking.grids import GridTracker  # noqa: PLC0415 - training works without MLflow

    return GridTracker(tracking_uri(), plan.experiment, runs_dir())


def _train(
    pending: list[PlannedRun],
    seconds: dict[str, float],
    backend: Backend,
    uploader: Uploader,
    console: Console,
) -> bool:
    """Train the pending runs, and show their progress. Return False if a signal stopped the launch."""
    bars = Display("grid", len(pending), sum(seconds.values()), lambda run: seconds[run.spec.run_key], console)
    with bars as display:
        queue = RunQueue(pending, display.on_other_launch)

        def started(run: PlannedRun) -> None:
            uploader.watch(run.spec.run_key)
            display.started(run)

        def ended(run: PlannedRun, state: str) -> None:
            display.ended(run, state)
            queue.ended(run, state)

        callbacks = LaunchCallbacks(started, display.progressed, ended=ended)
        finished = launch(queue.ready(), backend, callbacks)
        if not finished:
            uploader.launch_stopped()
    return finished


def _print_summary(runs: list[PlannedRun], uploader: Uploader, finished: bool, seconds: float, console: Console) -> int:
    """Print the runs that are not done, and return the exit status."""
    print_line = line_printer(console)
    states = {run.spec.run_key: run.folder.state()["state"] for run in runs}
    remaining = [run for run in runs if states[run.spec.run_key] != DONE]
    print_line(f"{len(runs) - len(remaining)} of {len(runs)} runs are done. This launch took {duration_text(seconds)}.")
    for run in remaining:
        state, teacher = states[run.spec.run_key], run.teacher
        message = f"  {run.spec.name}: {outcome(run, state)}"
        if state == MISSING and teacher is not None and teacher.state()["state"] != DONE:
            message += f": its teacher, {run.spec.teacher.name}, is not trained"
        print_line(message)
    print_line(uploader.summary())
    if not finished:
        print_line(STOPPED)
        return 130
    if FAILED in states.values():
        print_line("RETRY=1 runs the failed ones again")
    return 1 if remaining else 0
