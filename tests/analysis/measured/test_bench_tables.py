"""The generated tables of training costs."""

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.measured.bench_tables import TABLES, bench
from analysis.measured.csv_files import BENCH_KEY
from cskd.utils.errors import UserError
from cskd.utils.numbers import ABSENT
from experiments.bench.results import KEY

ROOT = Path(__file__).resolve().parents[3]
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
    assert first[:2] == ["cifar100, resnet10 (mini)", "cross-entropy"]
    assert first[4] == ABSENT
    assert second == ["", "cs-kd", "86", "1,481", "46", "1.6"]


def test_cross_table_has_a_column_for_each_cell(table):
    rows = [row(method="cross-entropy"), row(), row(profile="paper", architecture="resnet18", ratio="1.26")]
    header, _, first, second = cells(table("ratios", "steps", *rows))
    assert header == ["method", "cifar100, resnet10 (mini)", "cifar100, resnet18 (paper)"]
    assert first == ["cross-entropy", "1.31 (1.10 to 1.54)", ABSENT]
    assert second == ["cs-kd", "1.31 (1.10 to 1.54)", "1.26 (1.10 to 1.54)"]


def test_what_all_columns_share_is_in_the_caption(table):
    rows = [
        row(method=method, phase=phase, seconds=seconds, share=share)
        for method, phase, seconds, share in [
            ("cross-entropy", "forward", "0.25", "0.25"),
            ("cross-entropy", "backward", "0.75", "0.75"),
            ("cs-kd", "forward", "0.5", "0.6"),
        ]
    ]
    text = table("profile", "profile", *rows)
    header, _, *phases = cells(text)
    assert header == ["phase", "cross-entropy, s", "cross-entropy, %", "cs-kd, s", "cs-kd, %"]
    assert phases == [["forward", "0.250", "25", "0.500", "60"], ["backward", "0.750", "75", ABSENT, ABSENT]]
    assert "\n\ncifar100, resnet10 (mini); AMD EPYC, 2 cores (cpu, bf16); commit 0123456789ab. On a GPU: " in text


def test_each_machine_has_a_table_and_a_gpu_counts_as_measured(table):
    text = table("ratios", "steps", row(), row(**ON_GPU, ratio="1.21"), row(method="mixup", git_dirty="True"))
    unknown = table("ratios", "steps", row(git_commit="unknown", git_dirty="unknown"))
    first_cells = [line[0] for line in cells(text) if not line[0].startswith(":")]
    assert first_cells == ["method", "cs-kd", "mixup", "method", "cs-kd"]
    assert "AMD EPYC, 2 cores (cpu, bf16); commit 0123456789ab (dirty)." in text
    assert "Intel, 16 cores (NVIDIA H200, bf16, compiled); commit 0123456789ab." in text
    assert "not measured" not in text
    assert "commit unknown." in unknown


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], r"bench-steps\.csv has cifar100 mini resnet10 cs-kd .* twice: remove one of the two rows"),
        ([row(machine="")], r"bench-steps\.csv has rows without machine: restore it, or remove it"),
        ([row(seconds_per_step="fast")], r"bench-steps\.csv, column seconds_per_step: .*fast.*: correct it"),
    ],
)
def test_damaged_file_is_a_one_line_error(table, rows, message):
    with pytest.raises(UserError, match=message) as caught:
        table("steps", "steps", *rows)
    assert "\n" not in str(caught.value)


def test_absent_file_and_unknown_table_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"bench-operators\.csv does not exist: 'make bench PARTS=profile KEEP=1'"):
        bench("operators", tmp_path, Path())
    with pytest.raises(UserError, match="unknown table of bench 'stepps'"):
        bench("stepps", tmp_path, Path())


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_made_from_the_checked_in_files(name):
    text = bench(name, ROOT / "results" / "measured", ROOT)
    assert re.search(r"\d", cells(text)[2][-1])
    assert max(map(len, cells(text))) <= 8


def test_key_is_that_of_the_benchmark():
    assert BENCH_KEY == KEY
