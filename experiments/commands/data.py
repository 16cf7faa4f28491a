"""Download, verify and prepare datasets: ``python -m experiments data DATASET ...``."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cskd.data.prepare import SOURCES
from cskd.data.store import Dataset
from cskd.utils import cli
from cskd.utils.errors import UserError, one_line
from experiments.config.datasets import prepare_data
from experiments.config.recipe import Data, load_settings, recipe_names


def known_datasets() -> list[str]:
    """The official sets, then those of the user's own recipes."""
    return [*SOURCES, *(name for name in recipe_names() if name not in SOURCES)]


def data_of(name: str) -> Data:
    """Where the dataset of that name comes from. Raises UserError that lists the known ones."""
    if name in recipe_names():
        _, settings = load_settings(name)
        return settings.data
    raise UserError(f"unknown dataset {name!r}: choose from {', '.join(known_datasets())}")


class Reporter:
    """Shows how far a preparation is: a bar on a terminal, a line a stage elsewhere."""

    def __init__(self, dataset: str, console: Console):
        self.dataset, self.console = dataset, console
        self.stage = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Reporter":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage != self.stage:
            self.stage = stage
            for task in self.progress.task_ids:
                self.progress.remove_task(task)
            self.task = self.progress.add_task(f"{self.dataset}: {stage}", total=total, amount="")
            if not self.console.is_terminal:
                print(f"{self.dataset}: {stage} {amount(stage, None, total)}".rstrip(), flush=True)
        self.progress.update(self.task, completed=done, total=total, amount=amount(stage, done, total))


def amount(stage: str, done: int | None, total: int | None) -> str:
    """``3.1/169.0 MB`` or ``1,200/50,000``; without ``done`` the total alone, empty where none is known."""
    numbers = [number for number in (done, total) if number is not None]
    if stage.endswith("images"):
        return "/".join(f"{number:,}" for number in numbers)
    return "/".join(f"{number / 1e6:,.1f}" for number in numbers) + (" MB" if numbers else "")


def summary(dataset: Dataset) -> str:
    """One line about a prepared dataset."""
    size = (dataset.train.nbytes + dataset.test.nbytes) / 1e6
    incomplete = "" if dataset.complete else " INCOMPLETE"
    return (
        f"{dataset.name}: {len(dataset.classes)} classes, {len(dataset.train):,} training and "
        f"{len(dataset.test):,} test images{incomplete}, {size:,.1f} MB, digest {dataset.digest[:12]}, "
        f"from {dataset.source}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments data",
        description="Download, verify and prepare datasets. An unpacked official tree or the archives in "
        "DATA_DIR are taken instead of a download; what is prepared already is left as it is.",
        epilog=f"Known datasets: {', '.join(known_datasets())}; all stands for every one.",
    )
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="what to prepare; all for every one")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="take a copy with images missing too; its results never stand beside the paper's",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=cli.data_dir(),
        help="where datasets are found and kept (default: DATA_DIR, or data)",
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    names = known_datasets() if "all" in arguments.datasets else arguments.datasets
    wanted = {name: data_of(name) for name in names}  # a wrong name fails before anything is downloaded
    if "all" in arguments.datasets:  # a merged set is its parts, which are among all
        wanted = {name: data for name, data in wanted.items() if data.parts is None}
    data_dir = cli.absolute(arguments.data_dir, "--data-dir")
    console = Console()
    errors = []
    for name, data in wanted.items():
        started = time.monotonic()
        try:
            with Reporter(name, console) as report:
                dataset = prepare_data(name, data, data_dir, partial=arguments.partial, report=report)
        except UserError as error:
            errors.append(str(error))
        else:
            print(f"{summary(dataset)} ({time.monotonic() - started:.1f} s)", flush=True)
    for error in errors:
        print(f"error: {one_line(error)}", file=sys.stderr)
    return 2 if errors else 0
