"""Command-line options that several commands share."""

import argparse

from cskd.methods import canonical_name
from experiments.commands.execute import LaunchOptions
from experiments.launch.backends import BACKENDS
from experiments.runs.plan import ALL


def method_or_all(name: str) -> str:
    """An argument's type: a method, a sum's parts in any order, or what stands for all of them."""
    return name if name == ALL else canonical_name(name)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What settings are made of: a profile, and changes to it."""
    parser.add_argument("--profile", help="paper, mini, demo: a profile of the recipes (default: their own)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipes, such as schedule.epochs=10 or methods.cs-kd.temperature=1; may be "
        "repeated; what is tracked goes to an experiment or a study of its own",
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--architectures", nargs="+", metavar="NAME", help="in place of the grid's or resnet18")
    add_settings(parser)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on a GPU of its own (default 1)")
    parser.add_argument("--launcher", default="local", help=f"one of {', '.join(BACKENDS)} (default local)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and train nothing")
    parser.add_argument("--tuned", action="store_true", help="use the hyper-parameters that 'make tune' has found")
    parser.add_argument("--retry", action="store_true", help="run failed runs again")


def wish(arguments: argparse.Namespace) -> LaunchOptions:
    return LaunchOptions(
        profile=arguments.profile,
        overrides=tuple(arguments.overrides),
        workers=arguments.workers,
        launcher=arguments.launcher,
        dry_run=arguments.dry_run,
        retry=arguments.retry,
        tuned=arguments.tuned,
        architectures=tuple(arguments.architectures or ()),
    )
