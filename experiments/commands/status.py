"""Show a grid as a matrix: done, running, failed and why, missing."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.config.grid import grid_names
from experiments.launch.backends.slurm import QueuedTask, queued_tasks
from experiments.launch.progress import line_printer
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.plan import Plan, load_plans

STYLES = {DONE: "green", RUNNING: "cyan", FAILED: "red", INTERRUPTED: "yellow", MISSING: "dim"}


def main() -> int:
    parser = cli.Parser(prog="python -m experiments status", description=__doc__)
    parser.add_argument("grid", nargs="?", help="a grid, or one of its experiments such as table1-mini; default: all")
    arguments = parser.parse_args()
    plans = load_plans(cli.runs_dir())
    if not plans and not arguments.grid:
        raise UserError(f"no grid has been launched into {cli.runs_dir()}: start with 'make demo'")
    selected = [plan for plan in plans if arguments.grid in (None, plan.grid, plan.experiment)]
    if not selected:
        names = {plan.grid for plan in plans} | {plan.experiment for plan in plans}
        cli.check_choice("grid", arguments.grid, names | set(grid_names()))
        print(f"{arguments.grid} has not been launched into {cli.runs_dir()}: all its runs are missing")
    console = Console()
    try:
        queue = queued_tasks()
    except UserError as error:
        line_printer(console)(f"Slurm's queue is not shown: {error}")
        queue = {}
    for plan in selected:
        _print_matrix(plan, queue, console)
    return 0


def _print_matrix(plan: Plan, queue: dict[Path, QueuedTask], console: Console) -> None:
    seeds = sorted({seed for cell in plan.cells for seed in cell.runs})
    common, names = _split_names([cell.name for cell in plan.cells])
    # On a narrow terminal, the columns of the seeds are wrapped first.
    first = Column("cell", overflow="fold", no_wrap=max(map(len, names)) <= console.width // 2)
    title = ": ".join(filter(None, [plan.experiment, common]))
    table = Table(first, *(f"seed {seed}" for seed in seeds), title=title, title_justify="left")
    reasons = []
    for cell, name in zip(plan.cells, names, strict=True):
        row = []
        for seed in seeds:
            if seed not in cell.runs:
                row.append("")
                continue
            folder = RunFolder(cli.runs_dir() / cell.runs[seed])
            state, task = folder.state(), queue.get(folder.path)
            row.append(f"[{STYLES[state['state']]}]{_describe(folder, state, task)}[/]")
            if state["state"] in (FAILED, INTERRUPTED):
                log = f" (log: {folder.log})" if state["state"] == FAILED else ""
                reasons.append((state["state"], f"{cell.name}/seed{seed}: {state['reason']}{log}"))
            elif state["state"] == MISSING and not task and (teacher := _failed_teacher(folder)):
                reasons.append((MISSING, f"{cell.name}/seed{seed}: not started: its teacher, {teacher}, has failed"))
        table.add_row(name, *row)
    console.print(table)
    for state, reason in reasons:
        line_printer(console)(reason, style=STYLES[state])


def _split_names(names: list[str]) -> tuple[str, list[str]]:
    """Return the parts of dataset/architecture/method that all names share, and the other parts of each name."""
    parts = [name.split("/") for name in names]
    differ = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(differ):
        differ[-1] = True
    common = "/".join(part for part, differs in zip(parts[0], differ, strict=True) if not differs)
    return common, ["/".join(part for part, differs in zip(name, differ, strict=True) if differs) for name in parts]


def _failed_teacher(folder: RunFolder) -> str:
    """Return the name of the run's teacher if it has failed, otherwise ""."""
    teacher = folder.spec().teacher
    failed = teacher is not None and RunFolder.of(teacher, cli.runs_dir()).state()["state"] == FAILED
    return teacher.name if failed else ""


def _describe(folder: RunFolder, state: dict, task: QueuedTask | None) -> str:
    if state["state"] == DONE:
        return f"done {folder.epochs()[-1]['metrics']['test/top1_error']:.2f} %"
    text = state["state"]
    if text in (RUNNING, INTERRUPTED):
        text += f" {state['epoch']}/{state.get('epochs', '?')}"
    return f"{text}, {task.describe()}" if task else text
