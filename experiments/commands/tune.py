"""Tune a method's hyper-parameters on a validation split of the training set. The test set stays closed.

Trials are added up to the number wanted: the same command continues a study that was stopped or killed.
"""

import argparse

from cskd.utils import cli
from experiments.tuning.execute import TRIALS, execute
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.options import add_launch_arguments, launch, wish
from experiments.tuning.samplers import DEFAULT_SAMPLER
from experiments.tuning.space import DEFAULT


def main() -> int:
    parser = cli.Parser(
        prog="python -m experiments tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_launch_arguments(parser)
    parser.add_argument("--trials", type=int, help=f"of the whole study (default {TRIALS}; a finite space: all points)")
    parser.add_argument("--space", default=DEFAULT, help="a space of experiments/spaces/<method>.yaml")
    parser.add_argument("--objective", default="error", help=f"{', '.join(OBJECTIVES)}, or two, as error,ece")
    parser.add_argument("--sampler", default=DEFAULT_SAMPLER, help="gp (default), tpe, random, or grid: a regular one")
    parser.add_argument("--prune", action="store_true", help="stop poor trials after the first learning-rate drop")
    options = parser.parse_args()
    return execute(
        wish(options, space=options.space, objective=options.objective),
        launch(options, trials=options.trials, sampler=options.sampler, prune=options.prune),
    )
