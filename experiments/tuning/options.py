"""Command-line options that tuning and ablation share."""

import argparse
from typing import Any

from cskd.methods import canonical_name
from experiments.commands.options import add_settings_arguments
from experiments.tuning.execute import Launch
from experiments.tuning.setup import LaunchOptions


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", type=canonical_name, default="cs-kd", help="default cs-kd")
    parser.add_argument("--architecture", help="default resnet18, or what the profile trains")
    add_settings_arguments(parser)
    parser.add_argument("--seeds", type=int, default=1, help="of each trial, whose mean counts (default 1)")
    parser.add_argument("--timeout", type=float, metavar="MINUTES", help="begin no trial after this time")
    parser.add_argument("--study", metavar="NAME", help="another name, to start anew beside an earlier study")
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on a GPU of its own (default 1)")
    parser.add_argument("--retry", action="store_true", help="try the points of failed trials again")
    parser.add_argument("--dry-run", action="store_true", help="print the budget and train nothing")


def wish(options: argparse.Namespace, **own: Any) -> LaunchOptions:
    """What is wanted. own: what only one of the commands asks for."""
    shared = {
        "dataset": options.dataset,
        "method": options.method,
        "architecture": options.architecture,
        "profile": options.profile,
        "seeds": options.seeds,
        "overrides": tuple(options.overrides),
        "name": options.study,
    }
    return LaunchOptions(**shared | own)


def launch(options: argparse.Namespace, **own: Any) -> Launch:
    """How it is to be launched. own: what only one of the commands asks for."""
    return Launch(
        timeout=options.timeout,
        workers=options.workers,
        retry=options.retry,
        dry_run=options.dry_run,
        **own,
    )
