"""Show what tuning has found, beside the recipe's own setting."""

from rich.console import Console
from rich.table import Table

from cskd import cli
from cskd.errors import UserError
from cskd.methods import METHODS
from experiments.recipe import recipe_names
from experiments.tuning import tuned


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.tuned", description=__doc__)
    parser.add_argument("--dataset", help="default: all")
    parser.add_argument("--method", help="default: all")
    options = parser.parse_args()
    datasets = [cli.known("dataset", options.dataset, recipe_names())] if options.dataset else recipe_names()
    methods = [cli.known("method", options.method, METHODS)] if options.method else list(METHODS)
    console = Console()
    columns = ("dataset", "method", "profile/network", "setting", "validation", "study, trial", "date, commit")
    table = Table(*columns, title="Best trials; the recipe's setting in the same study", title_justify="left")
    for dataset in datasets:
        for method in methods:
            for entry, found in tuned.load(dataset, method).items():
                dirty = " (dirty)" if found.git_dirty else ""
                table.add_row(
                    dataset,
                    method,
                    entry,
                    f"{_told(found.parameters)} (best of {found.trials})",
                    f"{found.objective} {found.value:.4g}",
                    f"{found.study}, {found.trial}",
                    f"{found.date}, {found.git_commit[:7]}{dirty}",
                )
                value = "not tried" if found.recipe_value is None else f"{found.objective} {found.recipe_value:.4g}"
                table.add_row("", "", "", f"{_told(found.recipe_parameters)} (recipe)", value, "", "")
    if not table.row_count:
        asked = " ".join(filter(None, [options.dataset, options.method])) or "any dataset"
        raise UserError(f"nothing has been tuned for {asked} in {tuned.tuned_dir()}: make tune DATASET=... makes it")
    console.print(table)
    console.print(
        "Chosen by the lowest value of many trials: on other data it is higher. TUNED=1 tests it with other seeds."
    )
    return 0


def _told(point: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in point.items())


if __name__ == "__main__":
    cli.run(main)
