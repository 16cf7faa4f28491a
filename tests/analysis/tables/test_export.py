"""``python -m analysis tables``: the files and the printed tables, from a store of made-up runs."""

import io
import re

import pytest

from analysis.commands import tables
from cskd.utils.numbers import mean_std_text


@pytest.fixture(scope="module")
def exported(store_uri, tmp_path_factory):
    """The results folder and the printed text for all experiments."""
    folder = tmp_path_factory.mktemp("results")
    shown = ("--show", "error", "ece", "nll", "table1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store_uri)
        output = io.StringIO()
        patch.setattr("sys.stdout", output)
        assert tables.main(["--results-dir", str(folder), *shown]) == 0
    return folder, output.getvalue()


def test_every_table_is_written_in_every_format_and_listed(exported):
    folder, printed = exported
    for name in ("error", "top5_error", "ece", "nll", "brier", "recall_at_1", "reliability"):
        for ending in ("csv", "md", "tex"):
            assert (folder / "table1-mini" / f"{name}.{ending}").is_file(), name
        assert f"  {name}.{{csv,md,tex}}\n" in printed
    for ending in (".png", "-cs-kd.csv"):
        assert (folder / "table1-mini" / "reliability" / f"cifar100-resnet10{ending}").is_file()
    assert "  reliability/cifar100-resnet10.png\n" in printed
    for pool, numbers in (("paper", range(1, 7)), ("mini", (1, 2, 3, 4, 6))):
        assert {path.stem for path in (folder / "paper" / pool).glob("table*")} == {f"table{n}" for n in numbers}
    assert f"Written to {folder / 'paper' / 'paper'}:\n" in printed


def test_selected_tables_are_printed(exported):
    _, printed = exported
    for title in ("Top-1 error (%), table1", "ECE (%, 20 bins), table1-mini", "Table 1: Output regularisation, paper"):
        assert title in printed
    assert "Brier score" not in printed
    assert "Table 2" not in printed
    numbers = (mean_std_text(*number, 2) for number in ((21.99, 0.13), (22.25, 0.25), (22.12, 0.25)))
    cells = ("cs-kd", *numbers, "3", "\N{MINUS SIGN}10.1 %")
    assert re.search(" +".join(map(re.escape, cells)), printed)


def test_same_runs_give_identical_files(exported, call_stored, tmp_path):
    folder, _ = exported
    assert call_stored("analysis tables", "--experiment", "table1-mini")[0] == 0
    files = [path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*") if path.is_file()]
    files = [path for path in files if not path.parts[0].startswith(".")]  # caches
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".png"}
    assert {path.parts[0] for path in files} == {"table1-mini"}
    for file in files:
        assert (tmp_path / "results" / file).read_bytes() == (folder / file).read_bytes(), file
