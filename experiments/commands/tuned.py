"""Show the tuned hyper-parameters beside the recipe's setting."""

from rich.console import Console
from rich.table import Table

from cskd.evaluate.metrics import METRICS
from cskd.methods import build_method, canonical_name
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.config.recipe import recipe_names
from experiments.config.tuned import TunedParameters, load_all, tuned_dir
from experiments.launch.progress import line_printer


def main() -> int:
    parser = cli.Parser(prog="python -m experiments tuned", description=__doc__)
    parser.add_argument("--dataset", help="default: all")
    parser.add_argument("--method", type=canonical_name, help="default: all")
    options = parser.parse_args()
    if options.dataset:
        cli.check_choice("dataset", options.dataset, recipe_names())
    if options.method:
        build_method(options.method)
    entries = [
        entry
        for entry in load_all()
        if options.dataset in (None, entry.dataset) and options.method in (None, entry.method)
    ]
    if not entries:
        selection = " ".join(filter(None, [options.dataset, options.method])) or "any dataset"
        raise UserError(f"nothing is tuned for {selection} in {tuned_dir()}: tune with make tune DATASET=...")
    console = Console()
    for entry in entries:
        console.print(_table(entry))
        line_printer(console)(_source(entry))
    console.print("The best of many trials looks better than it is: TUNED=1 tests it with other seeds.")
    return 0


def _table(entry: TunedParameters) -> Table:
    title = f"{entry.dataset}, {entry.method}, {entry.entry}"
    metric = next(metric for metric in METRICS if metric.short_name == entry.objective)
    table = Table("", *entry.parameters, f"validation {metric.label}", title=title, title_justify="left")
    table.add_row("tuned", *(f"{value:.4g}" for value in entry.parameters.values()), f"{entry.value:.4g}")
    value = "not tried" if entry.recipe_value is None else f"{entry.recipe_value:.4g}"
    table.add_row("recipe", *(f"{entry.recipe_parameters[name]:.4g}" for name in entry.parameters), value)
    return table


def _source(entry: TunedParameters) -> str:
    teacher = f", teacher {entry.teacher}, run {entry.teacher_run_key}" if entry.teacher else ""
    return (
        f"trial {entry.trial}, the best of {entry.trials} complete trials of study {entry.study}, seeds "
        f"{' '.join(map(str, entry.seeds))}, {entry.date}, {entry.code}{teacher}"
    )
