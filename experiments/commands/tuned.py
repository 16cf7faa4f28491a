"""Show what tuning has found, beside the recipe's own setting."""

from rich.console import Console
from rich.table import Table

from cskd.methods import build_method, canonical_name
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.config import tuned
from experiments.config.recipe import recipe_names
from experiments.config.tuned import TunedParameters


def main() -> int:
    parser = cli.Parser(prog="python -m experiments tuned", description=__doc__)
    parser.add_argument("--dataset", help="default: all")
    parser.add_argument("--method", type=canonical_name, help="default: all")
    options = parser.parse_args()
    datasets = [cli.check_choice("dataset", options.dataset, recipe_names())] if options.dataset else recipe_names()
    if options.method:
        build_method(options.method)
    console = Console()
    shown = 0
    for dataset in datasets:
        for method in [options.method] if options.method else tuned.tuned_methods(dataset):
            for entry, found in tuned.load(dataset, method).items():
                console.print(_table(f"{dataset}, {method}, {entry}", found))
                console.print(_source(found), soft_wrap=True, highlight=False, markup=False)
                shown += 1
    if not shown:
        asked = " ".join(filter(None, [options.dataset, options.method])) or "any dataset"
        raise UserError(f"nothing has been tuned for {asked} in {tuned.tuned_dir()}: make tune DATASET=... does it")
    console.print("The best of many trials looks better than it is: TUNED=1 puts it to the test, with other seeds.")
    return 0


def _table(title: str, found: TunedParameters) -> Table:
    table = Table("", *found.parameters, f"validation {found.objective}", title=title, title_justify="left")
    table.add_row("tuned", *(f"{value:.4g}" for value in found.parameters.values()), f"{found.value:.4g}")
    value = "not tried" if found.recipe_value is None else f"{found.recipe_value:.4g}"
    table.add_row("recipe", *(f"{found.recipe_parameters[name]:.4g}" for name in found.parameters), value)
    return table


def _source(found: TunedParameters) -> str:
    dirty = " (dirty)" if found.git_dirty else ""
    taught = f", taught by {found.teacher}" if found.teacher else ""
    return (
        f"trial {found.trial}, best of {found.trials} complete ones in study {found.study}, seeds "
        f"{' '.join(map(str, found.seeds))}, {found.date}, commit {found.git_commit[:12]}{dirty}{taught}"
    )
