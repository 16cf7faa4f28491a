"""Command-line options that several commands share."""

import argparse
from dataclasses import dataclass, fields

from cskd.methods import canonical_name
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from experiments.config.grid import ALL
from experiments.launch.backends import BACKENDS

MAX_WORKERS = 1000


@dataclass(frozen=True)
class LaunchOptions:
    """How a grid is launched."""

    profile: str | None = None  # None: the recipes' default
    overrides: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()  # those that the user named
    tuned: bool = False
    workers: int = 1
    launcher: str = "local"
    retry: bool = False
    dry_run: bool = False

    def __post_init__(self):
        check_workers(self.workers)
        check_choice("launcher", self.launcher, BACKENDS)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "LaunchOptions":
        options = {field.name: getattr(arguments, field.name) for field in fields(cls)}
        lists = {name: tuple(options[name]) for name in ("overrides", "architectures")}
        return cls(**options | lists)


def check_workers(workers: int) -> None:
    if not 1 <= workers <= MAX_WORKERS:
        raise UserError(f"WORKERS must be from 1 to {MAX_WORKERS}, not {workers}")


def method_or_all(name: str) -> str:
    """Return the canonical name of a method; "all" stays. The type of an argument."""
    return name if name == ALL else canonical_name(name)


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", help="paper, mini, demo: a profile of the recipes (default: the recipe's)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipes, such as schedule.epochs=10 or methods.cs-kd.temperature=1; may be "
        "repeated; the results go to an experiment or a study of their own",
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that trains runs."""
    add_settings_arguments(parser)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on a GPU of its own (default 1)")
    parser.add_argument("--retry", action="store_true", help="run failed runs or trials again")
    parser.add_argument("--dry-run", action="store_true", help="print the plan or the budget, and train nothing")


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands that launch a grid."""
    parser.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="in place of the grid's")
    add_launch_arguments(parser)
    parser.add_argument("--launcher", default="local", help=f"one of {', '.join(BACKENDS)} (default local)")
    parser.add_argument("--tuned", action="store_true", help="use the hyper-parameters that 'make tune' has found")
