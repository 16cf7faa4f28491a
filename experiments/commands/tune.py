"""Tune a method's hyper-parameters on validation images of the training set. The test set stays closed.

The same command continues a study after a stop or a kill, until it has the given number of trials.
"""

from cskd.utils import cli
from experiments.commands.study import add_study_arguments, run_study
from experiments.tuning.config import DEFAULT_TRIALS, StudyOptions
from experiments.tuning.space import DEFAULT, EQUAL
from experiments.tuning.study import DEFAULT_SAMPLER, GRID, SAMPLERS
from experiments.tuning.trial import OBJECTIVES


def main() -> int:
    parser = cli.Parser(prog="python -m experiments tune", description=__doc__)
    add_study_arguments(parser)
    trials = f"trials of the whole study (default {DEFAULT_TRIALS}, or all points of a finite space)"
    parser.add_argument("--trials", type=int, help=trials)
    parser.add_argument("--space", default=DEFAULT, help=f"a space of experiments/spaces/<method>.yaml, or {EQUAL}")
    parser.add_argument("--objective", default="error", help=f"{', '.join(OBJECTIVES)}, or two, such as error,ece")
    sampler = "default gp, a Gaussian process; grid: a regular grid of the trials"
    parser.add_argument("--sampler", choices=[*SAMPLERS, GRID], default=DEFAULT_SAMPLER, help=sampler)
    parser.add_argument("--prune", action="store_true", help="stop poor trials after the first learning-rate drop")
    return run_study(StudyOptions.from_arguments(parser.parse_args()))
