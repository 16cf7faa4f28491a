"""The generated tables of training costs."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.measured.bench_tables import bench
from analysis.measured.csv_files import BENCH_KEY
from cskd.utils.errors import UserError
from cskd.utils.numbers import ABSENT
from experiments.bench.results import KEY

CELL = {"dataset": "cifar100", "profile": "mini", "architecture": "resnet10", "method": "cs-kd", "batch_size": "128"}
ON = {"machine": "AMD EPYC, 2 cores", "device": "cpu", "precision": "bf16", "compiled": "False", "threads": "2"}
ON_GPU = ON | {"machine": "Intel, 16 cores", "device": "NVIDIA H200", "compiled": "True"}
RATIO = {"ratio": "1.306", "ratio_min": "1.1", "ratio_max": "1.5449"}
STEP = {"seconds_per_step": "0.0864", "images_per_second": "1481.4", "matmul_share": "0.4641", "input_share": "0.0156"}


def row(**changes):
    return CELL | ON | RATIO | STEP | {"git_commit": "0123456789abcdef", "git_dirty": "False"} | changes


@pytest.fixture
def table(tmp_path):
    """Return the table of a part with these rows: ``table("ratios", "steps", *rows)``."""

    def make(name, part, *rows):
        pd.DataFrame(rows).to_csv(tmp_path / f"bench-{part}.csv", index=False)
        return bench(name, tmp_path, Path())

    return make


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]


def test_numbers_are_in_the_units_of_their_headers(table):
    header, _, first, second = cells(table("steps", "steps", row(method="cross-entropy", matmul_share=""), row()))
    assert header == ["trained", "method", "ms per step", "images/s", "% of the matrix rate", "% input"]
    assert (first[:2], first[4]) == (["cifar100, resnet10 (mini)", "cross-entropy"], ABSENT)
    assert second == ["", "cs-kd", "86", "1,481", "46", "1.6"]


def test_cross_table_has_a_column_for_each_cell_and_a_table_for_each_machine(table):
    rows = [row(method="cross-entropy"), row(), row(profile="paper", architecture="resnet18", ratio="1.26")]
    text = table("ratios", "steps", *rows, row(**ON_GPU, ratio="1.21"), row(method="mixup", git_dirty="True"))
    header, _, first, second, _, *gpu = cells(text)
    assert header == ["method", "cifar100, resnet10 (mini)", "cifar100, resnet18 (paper)"]
    assert first == ["cross-entropy", "1.31 (1.10 to 1.54)", ABSENT]
    assert second == ["cs-kd", "1.31 (1.10 to 1.54)", "1.26 (1.10 to 1.54)"]
    assert gpu[-1] == ["cs-kd", "1.21 (1.10 to 1.54)"]
    assert "AMD EPYC, 2 cores (cpu, bf16); commit 0123456789ab (dirty)." in text
    assert "Intel, 16 cores (NVIDIA H200, bf16, compiled); commit 0123456789ab." in text
    assert "not measured" not in text  # on a GPU
    assert "On a GPU: *not measured*." in table("ratios", "steps", row())


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("steps", [row(), row()], r"bench-steps\.csv has cifar100 mini resnet10 cs-kd .* twice: remove one of the two"),
        ("steps", [row(seconds_per_step="fast")], r"bench-steps\.csv, column seconds_per_step: .*fast.*: correct it"),
        ("operators", [row()], r"bench-operators\.csv does not exist: 'make bench PARTS=profile KEEP=1'"),
    ],
)
def test_damaged_or_absent_file_is_a_one_line_error(table, name, rows, message):
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        table(name, "steps", *rows)


def test_key_is_that_of_the_benchmark():
    assert BENCH_KEY == KEY
