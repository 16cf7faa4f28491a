"""The generated tables of what training costs: the files' numbers, the machines apart, and what was not measured."""

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.measured.bench_tables import TABLES, bench
from analysis.measured.csv_files import BENCH_KEY
from analysis.tables.model import ABSENT
from cskd.utils.errors import UserError
from experiments.bench.files import SAME

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "results" / "measured"
CELL = {"dataset": "cifar100", "profile": "mini", "architecture": "resnet10", "method": "cs-kd", "batch_size": "128"}
ON = {"machine": "AMD EPYC, 2 cores", "device": "cpu", "precision": "bf16", "compiled": "False", "threads": "2"}
ON_GPU = ON | {"machine": "Intel, 16 cores", "device": "NVIDIA H200", "compiled": "True"}
RATIO = {"ratio": "1.306", "ratio_min": "1.1", "ratio_max": "1.5449"}
STEP = {"seconds_per_step": "0.0864", "images_per_second": "1481.4", "matmul_share": "0.4641", "input_share": "0.0156"}


def row(**changes):
    return CELL | ON | RATIO | STEP | {"git_commit": "0123456789abcdef", "git_dirty": "False"} | changes


@pytest.fixture
def written(tmp_path):
    """Saves rows as the file of a part, and gives the folder."""

    def save(part, *rows):
        pd.DataFrame(rows).to_csv(tmp_path / f"bench-{part}.csv", index=False)
        return tmp_path

    return save


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]


def test_a_row_has_the_files_numbers_in_the_units_of_its_headers(written):
    text = bench("steps", written("steps", row(method="cross-entropy"), row()), Path())
    header, _, first, second = cells(text)
    assert header == ["trained", "method", "ms a step", "images/s", "% of the matrix rate", "% input"]
    assert first[:2] == ["cifar100, resnet10 (mini)", "cross-entropy"]
    assert second == ["", "cs-kd", "86", "1,481", "46", "1.6"]


def test_a_ratio_stands_with_its_least_and_most_below_what_was_trained(written):
    rows = [row(method="cross-entropy"), row(), row(profile="paper", architecture="resnet18", ratio="1.26")]
    header, _, first, second = cells(bench("ratios", written("steps", *rows), Path()))
    assert header == ["method", "cifar100, resnet10 (mini)", "cifar100, resnet18 (paper)"]
    assert first == ["cross-entropy", "1.31 (1.10 to 1.54)", ABSENT]
    assert second == ["cs-kd", "1.31 (1.10 to 1.54)", "1.26 (1.10 to 1.54)"]


def test_what_all_columns_share_stands_once_below(written):
    rows = [
        row(method=method, phase=phase, seconds=seconds, share=share)
        for method, phase, seconds, share in [
            ("cross-entropy", "forward", "0.25", "0.25"),
            ("cross-entropy", "backward", "0.75", "0.75"),
            ("cs-kd", "partner pass", "0.3333", "0.4"),
            ("cs-kd", "forward", "0.5", "0.6"),
        ]
    ]
    text = bench("profile", written("profile", *rows), Path())
    header, _, *phases = cells(text)
    assert header == ["phase", "cross-entropy, s", "cross-entropy, %", "cs-kd, s", "cs-kd, %"]
    assert phases == [
        ["forward", "0.250", "25", "0.500", "60"],
        ["backward", "0.750", "75", ABSENT, ABSENT],
        ["partner pass", ABSENT, ABSENT, "0.333", "40"],
    ]
    assert "\n\ncifar100, resnet10 (mini); AMD EPYC, 2 cores (cpu, bf16); commit 0123456789ab. On a GPU: " in text


def test_machines_stand_apart_and_a_gpu_counts_as_measured(written):
    folder = written("steps", row(), row(**ON_GPU, ratio="1.21"), row(method="mixup", git_dirty="True"))
    text = bench("ratios", folder, Path())
    first_cells = [line[0] for line in cells(text) if not line[0].startswith(":")]
    assert first_cells == ["method", "cs-kd", "mixup", "method", "cs-kd"]
    assert "AMD EPYC, 2 cores (cpu, bf16); commit 0123456789ab, 0123456789ab (dirty)." in text
    assert "Intel, 16 cores (NVIDIA H200, bf16, compiled); commit 0123456789ab." in text
    assert "not measured" not in text
    assert bench("ratios", written("steps", row()), Path()).count("On a GPU: *not measured*.") == 1


def test_a_number_that_is_absent_is_no_zero(written):
    text = bench("steps", written("steps", row(matmul_share="")), Path())
    assert cells(text)[2][4] == ABSENT


def test_only_the_longest_operators_are_shown(written):
    rows = [row(operator=f"aten::op{number}", share=str(0.2 - 0.01 * number)) for number in range(20)]
    _, _, *shown = cells(bench("operators", written("operators", *rows), Path()))
    assert [line[0] for line in shown] == [f"aten::op{number}" for number in range(8)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(), row()], r"bench-steps\.csv has cifar100 mini resnet10 cs-kd .* twice: remove one of the two rows"),
        ([row(machine="")], r"bench-steps\.csv has rows without machine: restore it, or remove it"),
        ([row(seconds_per_step="fast")], r"bench-steps\.csv, column seconds_per_step: .*fast.*: correct it"),
        (
            [{name: value for name, value in row().items() if name != "input_share"}],
            r"bench-steps\.csv has no input_share: measure it again",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(written, rows, said):
    with pytest.raises(UserError, match=said) as caught:
        bench("steps", written("steps", *rows), Path())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(
        UserError, match=r"bench-operators\.csv does not exist: 'make bench PARTS=profile KEEP=1' writes"
    ):
        bench("operators", tmp_path, Path())
    with pytest.raises(UserError, match="unknown table of bench 'stepps'"):
        bench("stepps", tmp_path, Path())


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_made_of_the_checked_in_files(name):
    text = bench(name, MEASURED, ROOT)
    assert re.search(r"\d", cells(text)[2][-1])
    assert max(map(len, cells(text))) <= 8
    assert f"[results/measured/bench-{TABLES[name].part}.csv]" in text


def test_the_files_are_read_by_what_they_are_kept_by():
    assert BENCH_KEY == SAME
