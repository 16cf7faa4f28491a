"""Show a grid as a matrix: done (with the test error), running, failed and why, missing."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.launch.backends.slurm import QueuedTask, queued_tasks
from experiments.launch.progress import line_printer
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.stored_plan import Plan, load_plans

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
        from experiments.config.grid import grid_names  # noqa: PLC0415 - imports torch

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
    if selected:
        print("A number is the test error of a finished run, after its last epoch.")
    return 0


def _print_matrix(plan: Plan, queue: dict[Path, QueuedTask], console: Console) -> None:
    """Print the states of a plan's runs. Seeds that do not fit beside each other continue in a further table."""
    folders = {
        (cell.name, seed): RunFolder(cli.runs_dir() / run_key)
        for cell in plan.cells
        for seed, run_key in cell.runs.items()
    }
    states = {key: folder.state() for key, folder in folders.items()}
    texts = {key: _describe(folder, states[key], queue.get(folder.path)) for key, folder in folders.items()}
    common, names = _split_names([cell.name for cell in plan.cells])
    first_width = min(max(map(len, names)), console.width // 2)
    seeds = sorted({seed for cell in plan.cells for seed in cell.runs})
    seed_width = max(len(line) for text in (f"seed {seeds[-1]}", *texts.values()) for line in text.splitlines())
    title = Text(": ".join(filter(None, [plan.experiment, common])), style="table.title")
    fitting = max(1, (console.width - first_width - 4) // (seed_width + 3))
    for group in (seeds[start : start + fitting] for start in range(0, len(seeds), fitting)):
        first = Column("cell", overflow="fold", min_width=first_width)
        columns = (Column(f"seed {seed}", no_wrap=True) for seed in group)
        table = Table(first, *columns)
        for cell, name in zip(plan.cells, names, strict=True):
            planned = [(cell.name, seed) if seed in cell.runs else None for seed in group]
            table.add_row(name, *(key and f"[{STYLES[states[key]['state']]}]{texts[key]}[/]" for key in planned))
        console.print(title, soft_wrap=True)  # a table's own title would be wrapped at the table's width
        console.print(table)
    for (name, seed), state in states.items():
        folder = folders[name, seed]
        if reason := _reason(folder, state, folder.path in queue):
            line_printer(console)(f"{name}/seed{seed}: {reason}", style=STYLES[state["state"]])


def _reason(folder: RunFolder, state: dict, is_queued: bool) -> str:
    """Return why a run is not done and not running, "" if there is nothing to tell."""
    if state["state"] in (FAILED, INTERRUPTED):
        return f"{state['reason']} (log: {folder.log})" if state["state"] == FAILED else state["reason"]
    if state["state"] == MISSING and not is_queued and (teacher := _failed_teacher(folder)):
        return f"not started: its teacher, {teacher}, has failed"
    return ""


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
    try:
        teacher = folder.spec().teacher
    except UserError:  # of another version of the suite: the next launch writes it again
        return ""
    failed = teacher is not None and RunFolder.of(teacher, cli.runs_dir()).state()["state"] == FAILED
    return teacher.name if failed else ""


def _describe(folder: RunFolder, state: dict, task: QueuedTask | None) -> str:
    """Return a run's text in the matrix, in up to three lines."""
    if state["state"] == DONE:
        try:
            return f"{folder.epochs()[-1]['metrics']['test/top1_error']:.2f} %"
        except (UserError, IndexError):  # the next launch trains the run again
            return "damaged"
    lines = [state["state"]]
    if state["state"] in (RUNNING, INTERRUPTED):
        lines.append(f"{state['epoch']}/{state.get('epochs', '?')}")
    return "\n".join([*lines, task.describe()] if task else lines)
