"""Command-line options that several commands share."""

import argparse
from dataclasses import dataclass

from cskd.methods import canonical_name
from experiments.config.grid import ALL
from experiments.launch.backends import BACKENDS
from experiments.launch.options import LaunchOptions


@dataclass(frozen=True, kw_only=True)
class GridOptions(LaunchOptions):
    """The options of ``grid`` and ``train``."""

    architectures: tuple[str, ...] = ()  # named by the user
    tuned: bool = False  # use tuned hyper-parameters


def method_or_all(name: str) -> str:
    """Argument type: the canonical name of a method, or "all"."""
    return name if name == ALL else canonical_name(name)


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select and change the settings of recipes."""
    parser.add_argument("--profile", help="paper, mini, demo: a profile of the recipes (default: the recipe's)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipes, such as schedule.epochs=10 or methods.cs-kd.temperature=1; may be "
        "repeated; the results go to a separate experiment or study",
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``LaunchOptions``, for every command that trains runs."""
    add_settings_arguments(parser)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on its own GPU (default 1)")
    parser.add_argument("--launcher", default="local", help=f"one of {', '.join(BACKENDS)} (default local)")
    parser.add_argument("--retry", action="store_true", help="run failed runs, or the points of failed trials, again")
    parser.add_argument("--dry-run", action="store_true", help="print the plan or the budget, and train nothing")


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``GridOptions``, for the commands that launch a grid."""
    parser.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="replace the grid's")
    add_launch_arguments(parser)
    parser.add_argument("--tuned", action="store_true", help="use the hyper-parameters that 'make tune' has found")
