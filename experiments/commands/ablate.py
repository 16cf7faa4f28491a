"""Measure a method on every point of the paper's grid, T in {1, 4} x lambda_cls in {1, 2, 3, 4}, and draw a heat map.

On a validation split of the training set: the test set stays closed. Nothing is chosen: no tuned values are written.
The same command continues an ablation that was stopped or killed.
"""

import argparse

from cskd.utils import cli
from experiments.tuning.execute import execute
from experiments.tuning.options import add_launch_arguments, launch, wish
from experiments.tuning.space import PAPER, ablatable


def main() -> int:
    parser = cli.Parser(
        prog="python -m experiments ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_launch_arguments(parser)
    options = parser.parse_args()
    return execute(wish(options, method=ablatable(options.method), space=PAPER, ablation=True), launch(options))
