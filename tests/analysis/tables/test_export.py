"""``python -m analysis tables``: the files and the printed tables, from a store of made-up runs."""

import io
import re

import pytest

from analysis.commands import tables
from cskd.utils import cli
from cskd.utils.errors import UserError
from cskd.utils.numbers import mean_std_text


def run(uri, monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tables.main(list(arguments)) == 0
    return capsys.readouterr().out


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
    names = ("error", "top5_error", "ece", "nll", "brier", "recall_at_1", "reliability")
    for name in names:
        for ending in ("csv", "md", "tex"):
            assert (folder / "table1" / f"{name}.{ending}").is_file(), name
        assert f"  {name}.{{csv,md,tex}}\n" in printed
    for ending in (".png", ".pdf", "-cs-kd.csv"):
        assert (folder / "table1" / "reliability" / f"cifar100-resnet18{ending}").is_file()
    assert "  reliability/cifar100-resnet18.{pdf,png}\n" in printed
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


def test_same_runs_give_identical_files(exported, store_uri, tmp_path, monkeypatch, capsys):
    folder, _ = exported
    run(store_uri, monkeypatch, capsys, "--experiment", "table1-mini", "--results-dir", str(tmp_path))
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".png", ".pdf"}
    assert {path.parts[0] for path in files} == {"table1-mini"}
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_latex_is_ascii_and_balanced(exported):
    folder, _ = exported
    for path in folder.rglob("*.tex"):
        text = path.read_text()
        assert text.isascii()
        assert not re.search(r"(?<!\\)[&_#](?![^\n]*\\\\)|(?<!\\)%(?! needs)", text)
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        for environment in ("table", "tabular", "minipage"):
            assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}")
        for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
            rows = [line for line in body.splitlines() if line.endswith(r" \\")]
            assert rows
            assert all(len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1 for row in rows)


def test_tables_of_all_experiments_reject_a_selection(store_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    with pytest.raises(UserError, match=r"^table1: needs all experiments; leave out --experiment$"):
        tables.main(["--experiment", "table1", "--show", "table1"])
    with pytest.raises(UserError, match=r"unknown table 'table7'"):
        tables.main(["--show", "table7"])


def test_results_folder_that_cannot_be_written_is_named(store_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match=r"results.* cannot be written \(.*\): set RESULTS_DIR or --results-dir"):
        tables.main(["--experiment", "table1", "--results-dir", str(tmp_path / "results")])


def test_output_works_with_any_encoding_and_files_are_utf8(store_uri, tmp_path, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setattr("sys.stdout", output)
    with pytest.raises(SystemExit, match="0"):
        cli.run(lambda: tables.main(["--experiment", "table1", "--results-dir", str(tmp_path)]))
    output.flush()
    assert re.search(r"cs-kd \? .* interrupted", output.buffer.getvalue().decode("iso-8859-1"))
    assert "cs-kd \N{DAGGER}" in (tmp_path / "table1" / "error.md").read_text(encoding="utf-8")
