"""The table that a launch prints before it trains: cells, seeds, time and disk."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cskd.data.folders import free_bytes, gigabytes
from cskd.utils.cli import runs_dir
from cskd.utils.errors import UserError
from cskd.utils.numbers import duration_text
from experiments.launch.backends import backend_class
from experiments.launch.estimate import Estimator, check_weights, disk_bytes
from experiments.launch.options import LaunchOptions
from experiments.runs.folder import DONE
from experiments.runs.plan import PlannedRun
from experiments.runs.stored_plan import Plan


def print_plan(
    plan: Plan,
    runs: list[PlannedRun],
    pending: list[PlannedRun],
    options: LaunchOptions,
    console: Console,
) -> dict[str, float]:
    """Print the plan and return the estimated seconds of each pending run by run key.

    A run that is trained elsewhere has no estimate. Raises UserError if the disk is too small, or for weights of
    another network.
    """
    for run in {run.spec.architecture: run for run in pending if run.spec.settings.weights}.values():
        check_weights(run)
    seconds, estimator = {}, Estimator(options.workers)
    if not backend_class(options.launcher).detached:
        with console.status("measuring a training step of each kind on this machine"):
            seconds = {run.spec.run_key: estimator.seconds(run) for run in pending}
    columns = (Column("cell", overflow="fold"), "seeds", "done", "to do", "time per run")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    needed = 0  # bytes of disk; the same for all seeds of a cell
    for cell in plan.cells:
        cell_runs = [run for run in runs if run.spec.cell == cell.name]
        to_do = [run for run in cell_runs if run in pending]
        times = [seconds[run.spec.run_key] for run in to_do if seconds]
        if to_do:
            needed += len(to_do) * disk_bytes(to_do[0])
        done = sum(run.folder.state()["state"] == DONE for run in cell_runs)
        time = duration_text(sum(times) / len(times)) if times else "-"
        table.add_row(cell.name, " ".join(str(run.spec.seed) for run in cell_runs), str(done), str(len(to_do)), time)
    console.print(Text(plan.experiment, style="table.title"), soft_wrap=True)  # a table would wrap it at its width
    console.print(table)
    if runs:
        duration = ""
        if seconds or not pending:
            total = duration_text(sum(seconds.values()) / max(1, min(options.workers, len(pending))))
            source = "from a measured training step, without start-up and data loading"
            duration = f"about {total} with {options.workers} at once ({source}), "
        console.print(
            f"{len(pending)} of {len(runs)} runs to do, {duration}about {gigabytes(needed)} of disk "
            f"({free_bytes(runs_dir()) / 1e9:.1f} GB free).",
            highlight=False,
        )
    for schedule in dict.fromkeys(run.spec.settings.schedule for run in runs):
        if late := [milestone for milestone in schedule.milestones if milestone >= schedule.epochs]:
            console.print(
                f"The learning rate does not drop after {late}: training ends at epoch {schedule.epochs}. Set "
                "schedule.milestones too, if it should.",
                markup=False,
                highlight=False,
            )
    if not options.dry_run:
        check_disk(needed)
    return seconds


def check_disk(needed: int) -> None:
    """Raise UserError if RUNS_DIR has fewer free bytes."""
    free = free_bytes(runs_dir())
    if needed > free:
        raise UserError(f"{runs_dir()} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: set RUNS_DIR")
