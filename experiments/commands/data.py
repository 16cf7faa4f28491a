"""Download, verify and prepare datasets.

An unpacked official folder, or the archives in DATA_DIR, are used instead of a download. A prepared dataset is not
prepared again.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from cskd.data.sources.registry import SOURCES
from cskd.data.store import Dataset
from cskd.utils import cli
from cskd.utils.errors import UserError, one_line
from experiments.config.datasets import IMAGE_FOLDER
from experiments.config.recipe import load_settings, recipe_names
from experiments.config.settings import Data
from experiments.launch.data_progress import prepare_with_progress


def known_datasets() -> list[str]:
    """Return the official datasets, then those of the user's own recipes."""
    return [*SOURCES, *(name for name in recipe_names() if name not in SOURCES)]


def data_of(name: str) -> Data:
    """Return the ``data`` section of the dataset's recipe. Raises UserError for an unknown dataset."""
    return load_settings(name)[1].data


def _is_in_all(name: str, data: Data) -> bool:
    if name in SOURCES:
        return not any(archive.needs_account for archive in SOURCES[name].archives)
    return data.reader == IMAGE_FOLDER


def summary(dataset: Dataset) -> str:
    """Return one line about a prepared dataset."""
    size = (dataset.train.nbytes + dataset.test.nbytes) / 1e6
    incomplete = "" if dataset.complete else " INCOMPLETE"
    return (
        f"{dataset.name}: {len(dataset.classes)} classes, {len(dataset.train):,} training and "
        f"{len(dataset.test):,} test images{incomplete}, {size:,.1f} MB, digest {dataset.digest[:12]}, "
        f"from {dataset.source}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments data", description=__doc__)
    known = ", ".join(known_datasets())
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help=f"{known}; all: those that need no account")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept a copy with missing images; its results are never compared with the paper's",
    )
    parser.add_argument(
        "--data-dir", type=Path, default=cli.data_dir(), help="folder of the datasets (default: DATA_DIR, or data)"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    prepare_all = "all" in arguments.datasets
    names = known_datasets() if prepare_all else arguments.datasets
    sections = {name: data_of(name) for name in names}  # a wrong name fails before any download
    if prepare_all:  # other recipes of official datasets need no more than these
        sections = {name: data for name, data in sections.items() if _is_in_all(name, data)}
    data_dir = cli.absolute(arguments.data_dir, "--data-dir")
    console = Console()
    errors = []
    for name, data in sections.items():
        started = time.monotonic()
        try:
            dataset = prepare_with_progress(name, data, data_dir, console, partial=arguments.partial)
        except UserError as error:
            errors.append(error)
        else:
            print(f"{summary(dataset)} ({time.monotonic() - started:.1f} s)", flush=True)
    for error in errors:
        print(f"error: {one_line(error)}", file=sys.stderr)
    return 2 if errors else 0
