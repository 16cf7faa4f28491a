"""Measure a method on every point of the paper's grid, T in {1, 4} x lambda_cls in {1, 2, 3, 4}, and draw a heat map.

A validation split of the training set is used; the test set stays closed. No tuned values are written.
The same command continues an ablation after a stop or a kill.
"""

from cskd.utils import cli
from experiments.commands.study import add_study_arguments, run_study
from experiments.tuning.config import StudyOptions
from experiments.tuning.space import PAPER


def main() -> int:
    parser = cli.Parser(prog="python -m experiments ablate", description=__doc__)
    add_study_arguments(parser)
    return run_study(StudyOptions.from_arguments(parser.parse_args(), space=PAPER, ablation=True))
