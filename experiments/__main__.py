"""The commands that run something: ``python -m experiments <command>``."""

import sys

from cskd.utils.cli import dispatch
from experiments.launch.allocation import restart_with_allocation

COMMANDS = {
    "grid": "train a grid: datasets x methods x seeds",
    "train": "train one run",
    "data": "download, verify and prepare datasets",
    "tune": "tune a method's hyper-parameters on validation images",
    "tune-all": "tune several methods at equal budgets",
    "ablate": "measure a method on every point of the paper's grid of hyper-parameters",
    "tuned": "show the tuned hyper-parameters beside the recipe's",
    "status": "show a grid as a matrix of run states",
    "sync": "upload to MLflow what it lacks",
    "ui": "serve the MLflow UI on this machine",
    "dashboard": "serve optuna-dashboard on this machine",
    "bench": "measure the cost of training on this machine",
    "worker": "train one run folder; launchers start it",
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["bench"]:  # it trains in this process, and measures what a run takes
        restart_with_allocation()
    dispatch("experiments", COMMANDS)
