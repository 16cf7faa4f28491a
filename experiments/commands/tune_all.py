"""Tune several methods at equal budgets: one study each, with the same number of settings and the same objective.

Each searches its own hyper-parameters, the learning rate and the weight decay. The same command continues after a stop.
"""

import argparse

from cskd.methods import canonical_name
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.commands.study import add_studies_arguments, run_study
from experiments.config.grid import load_grid
from experiments.tuning.config import StudyOptions
from experiments.tuning.space import EQUAL
from experiments.tuning.trial import parse_objectives

TABLES = ("table1", "table2", "table3")  # of the paper, whose methods are tuned by default
FRESH_SEEDS = "0 1 2 3 4"
STOPPED_STATUS = 130


def main() -> int:
    parser = cli.Parser(prog="python -m experiments tune-all", description=__doc__)
    methods = list(dict.fromkeys(name for table in TABLES for name in load_grid(table, methods=["all"]).methods))
    add_studies_arguments(parser)
    parser.add_argument("--methods", type=canonical_name, nargs="+", default=methods, help="default: tables 1 to 3")
    parser.add_argument("--trials", type=int, default=12, help="settings a method (default 12)")
    parser.add_argument("--objective", default="nll", help="of all methods (default nll)")
    arguments = parser.parse_args()
    if arguments.overrides or arguments.gpus:
        given = "SET" if arguments.overrides else "GPUS"
        raise UserError(f"{given}: tuned values belong to the recipe's own settings: leave it out, or use make tune")
    if len(parse_objectives(arguments.objective)) > 1:
        raise UserError(f"OBJECTIVE={arguments.objective}: two objectives choose no values: give one")
    studies = [
        StudyOptions.from_arguments(arguments, method=method, space=EQUAL)
        for method in dict.fromkeys(arguments.methods)
    ]
    statuses = []
    for options in studies:
        statuses.append(run_study(options))
        if statuses[-1] == STOPPED_STATUS:
            break
    if not any(statuses) and not arguments.dry_run:
        print(f"the tuned settings with seeds that were not used for tuning: {_train_command(arguments)}")
    return max(statuses)


def _train_command(arguments: argparse.Namespace) -> str:
    """Return the command that trains the tuned settings."""
    profile = f" PROFILE={arguments.profile}" if arguments.profile else ""
    architecture = f" ARCHITECTURES={arguments.architecture}" if arguments.architecture else ""
    methods = " ".join(dict.fromkeys(arguments.methods))
    return (
        f"make reproduce-table1 DATASETS={arguments.dataset}{profile}{architecture} "
        f'METHODS="{methods}" SEEDS="{FRESH_SEEDS}" TUNED=1'
    )
