"""The options of launches, and their command-line arguments, for the commands that train grids and studies."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import torch

from cskd.methods import canonical_name
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.limits import usable_cores
from experiments.config.grid import ALL
from experiments.config.settings import Settings
from experiments.launch.backends import BACKENDS
from experiments.launch.backends.local import visible_gpus

MAX_WORKERS = 1000
AUTO, LOCAL = "auto", "local"


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of every launch."""

    profile: str | None = None  # None: the recipe's default
    overrides: tuple[str, ...] = ()  # "key=value": settings changed from the recipe
    workers: int | None = None  # runs at once; None: as many as ``with_workers`` finds
    launcher: str = LOCAL
    retry: bool = False  # run failed runs or trials again
    dry_run: bool = False  # print the plan or the budget, and train nothing

    def __post_init__(self):
        if self.workers is not None:
            check_range("WORKERS", self.workers, MAX_WORKERS)
        check_choice("launcher", self.launcher, BACKENDS)

    @classmethod
    def from_arguments(cls, arguments: Namespace, **more: Any) -> Self:
        """Return the options that a command line and ``more`` set. ``--gpus`` is the setting ``replicas``."""
        values = {field.name: getattr(arguments, field.name) for field in fields(cls) if field.name in arguments}
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        if arguments.gpus is not None:
            tuples["overrides"] += (f"replicas={arguments.gpus}",)
            if arguments.launcher == LOCAL and not arguments.dry_run:
                check_gpus(arguments.gpus)
        return cls(**values | tuples | more)

    def with_workers(self, settings: Iterable[Settings], maximum: int = MAX_WORKERS) -> Self:
        """Return the options with a number of workers, if none was given.

        On this machine, it is one a GPU, or as many as the cores allow; with another launcher, one.
        """
        if self.workers is not None:
            return self
        if self.launcher != LOCAL:
            return replace(self, workers=1)
        recipes = list(settings)
        cores, replicas = usable_cores(), max(recipe.replicas for recipe in recipes)
        threads = max(replicas, *(recipe.threads or cores for recipe in recipes))
        fitting = len(gpus) // replicas if (gpus := visible_gpus()) else cores // threads
        return replace(self, workers=max(1, min(maximum, fitting)))


@dataclass(frozen=True, kw_only=True)
class GridOptions(LaunchOptions):
    """The options of ``grid`` and ``train``."""

    architectures: tuple[str, ...] = ()  # named by the user
    tuned: bool = False  # use tuned hyper-parameters
    skip_missing: bool = False  # leave out datasets that cannot be had
    tables: tuple[str, ...] | None = None  # make the tables afterwards, and print these; (): the default ones
    tracking_cost: Path | None = None  # a file for the processor time of the uploads


def check_gpus(wanted: int) -> None:
    """Raise UserError if this machine has fewer GPUs."""
    count = torch.cuda.device_count()
    if count < wanted:
        advice = (
            f"SET=replicas={wanted} trains {wanted} processes on the CPU" if count == 0 else f"give at most {count}"
        )
        raise UserError(f"GPUS={wanted}: this machine has {count or 'none'}: {advice}")


def check_range(variable: str, value: int, maximum: int) -> None:
    """Raise UserError unless 1 <= value <= maximum."""
    if not 1 <= value <= maximum:
        raise UserError(f"{variable} must be from 1 to {maximum}, not {value}")


def workers_or_auto(text: str) -> int | None:
    """Argument type: a number of workers, or None for "auto"."""
    if text == AUTO:
        return None
    if not text.lstrip("-").isdecimal():
        raise ArgumentTypeError(f"WORKERS is a number or {AUTO}, not {text}")
    return int(text)


def method_or_all(name: str) -> str:
    """Argument type: the canonical name of a method, or "all"."""
    return name if name == ALL else canonical_name(name)


def seed_number(text: str) -> int:
    """Argument type: a seed."""
    try:
        return int(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a whole number; list each seed, such as 0 1 2") from error


def add_settings_arguments(parser: ArgumentParser) -> None:
    """Add the options that select and change the settings of recipes."""
    parser.add_argument("--profile", help="a profile of the recipes: paper, small, mini, demo (default: the recipe's)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipes, such as schedule.epochs=10 or methods.cs-kd.temperature=1; may be "
        "repeated; the results go to a separate experiment or study",
    )


def add_launch_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``LaunchOptions``, for every command that trains runs."""
    add_settings_arguments(parser)
    workers = f"runs at once; {AUTO} (default): one a GPU, or as many as the cores allow with the recipe's threads"
    parser.add_argument("--workers", type=workers_or_auto, help=workers)
    gpus = "GPUs for each run, which divide its batches; without it, the recipe's 'replicas' (default 1)"
    parser.add_argument("--gpus", type=int, metavar="N", help=gpus)
    parser.add_argument("--launcher", default=LOCAL, help=f"one of {', '.join(BACKENDS)} (default {LOCAL})")
    parser.add_argument("--retry", action="store_true", help="run failed runs, or the points of failed trials, again")
    parser.add_argument("--dry-run", action="store_true", help="print the plan or the budget, and train nothing")


def add_grid_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``GridOptions``, for the commands that launch a grid."""
    parser.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="replace the grid's")
    add_launch_arguments(parser)
    parser.add_argument("--tuned", action="store_true", help="use the hyper-parameters that 'make tune' has found")
    skip = "leave out datasets that cannot be had, and run the others"
    parser.add_argument("--skip-missing", action="store_true", help=skip)
    cost = "write the processor time of tracking to this JSON file, for measurements"
    parser.add_argument("--tracking-cost", type=Path, metavar="FILE", help=cost)
