"""The table of tuning studies shows the recipe's trial beside the one with the lowest objective."""

import pandas as pd
import pytest

from analysis.measured.studies import studies
from cskd.utils.errors import UserError
from cskd.utils.numbers import ABSENT

NAME = "mini-equal-space-nll-unused"


def write(folder, method, nll, states=None):
    count = len(nll)
    trials = {"trial": range(count), "state": states or ["complete"] * count, "schedule.lr": [0.1, 0.02, 0.05][:count]}
    trials |= {"top1_error": [50 - row for row in range(count)], "nll": nll}
    pd.DataFrame(trials).to_csv(folder / f"study-cifar100-{method}-{NAME}.csv", index=False)


def test_recipe_beside_the_best_complete_trial(tmp_path):
    write(tmp_path, "label-smoothing", [1.7, 1.5, 1.6])
    write(tmp_path, "cs-kd", [1.7, 1.2, 1.6], ["complete", "failed", "complete"])
    write(tmp_path, "cross-entropy", [1.7, 1.5], ["failed", "complete"])
    lines = studies(NAME, tmp_path, tmp_path).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| cifar100")]
    assert rows == [
        ["cifar100", "cross-entropy", "1", ABSENT, "1.500", ABSENT, "49.00", "schedule.lr 0.02"],
        ["cifar100", "cs-kd", "2", "1.700", "1.600", "50.00", "48.00", "schedule.lr 0.05"],
        ["cifar100", "label-smoothing", "3", "1.700", "1.500", "50.00", "49.00", "schedule.lr 0.02"],
    ]
    assert f"[cifar100 cs-kd](study-cifar100-cs-kd-{NAME}.csv)" in lines[-1]


def test_absent_and_damaged_files_are_one_line_errors(tmp_path):
    with pytest.raises(UserError, match=f"has no study-\\*-{NAME}.csv: copy trials.csv of the studies"):
        studies(NAME, tmp_path, tmp_path)
    (tmp_path / f"study-cifar100-cs-kd-{NAME}.csv").write_text("trial,state\n0,complete\n")
    with pytest.raises(UserError, match="cannot be read"):
        studies(NAME, tmp_path, tmp_path)
