"""The tables as files and on the terminal, from a store of made-up runs."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from golden import compare
from made_up_pool import made_up_experiment
from rich.console import Console

from analysis.commands import tables
from analysis.load.pools import pools
from analysis.tables.format import show, to_latex, to_markdown
from analysis.tables.metrics import metric_table
from analysis.tables.model import Block, Column, Table
from analysis.tables.provenance import introduction
from analysis.tables.reliability import cell_reliabilities, coarser, ece, pooled
from cskd.evaluate.metrics import TRACKED
from cskd.evaluate.scores import expected_calibration_error, reliability_bins
from cskd.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
COMPARED = (
    *("error.csv", "error.md", "error.tex", "ece.md", "nll.md", "recall_at_1.md"),
    *("reliability.csv", "reliability.md", "reliability.tex", "runs.csv"),
)
ERROR = TRACKED[0]


@pytest.fixture(scope="module")
def written(store_uri, tmp_path_factory):
    """What the command writes for all experiments, and what it prints."""
    folder = tmp_path_factory.mktemp("results")
    printed = run(store_uri, ["--results-dir", str(folder)])
    return folder, printed


def run(uri, arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        output = io.StringIO()
        patch.setattr("sys.stdout", output)
        assert tables.main(arguments) == 0
    return output.getvalue()


@pytest.mark.parametrize("experiment", ["table1", "table1-mini"])
@pytest.mark.parametrize("file", COMPARED)
def test_tables_are_the_golden_ones(written, experiment, file):
    """Byte by byte. To make them anew: UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_tables.py"""
    folder, _ = written
    compare((folder / experiment / file).read_bytes().decode(), GOLDEN / experiment / file)


def test_the_terminal_shows_the_golden_text(written):
    """Byte by byte. To make it anew: UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_tables.py"""
    folder, printed = written
    compare(printed.replace(str(folder), "results"), GOLDEN / "terminal.txt")


def test_the_same_runs_give_the_same_bytes(written, store_uri, tmp_path):
    folder, _ = written
    run(store_uri, ["--experiment", "table1", "--results-dir", str(tmp_path)])
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".png", ".pdf"}
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_every_file_is_where_it_is_said_to_be(written):
    folder, printed = written
    assert (folder / "table1" / "reliability" / "cifar100-resnet18.png").is_file()
    assert (folder / "table1" / "reliability" / "cifar100-resnet18.pdf").is_file()
    assert (folder / "table1" / "reliability" / "cifar100-resnet18-cs-kd.csv").is_file()
    assert "  reliability/cifar100-resnet18.{pdf,png}\n" in printed
    assert "  error.{csv,md,tex}\n" in printed


def test_only_comparable_cells_stand_beside_the_paper(store):
    [paper, mini] = store.load(["table1", "table1-mini"])
    frame = metric_table(paper, ERROR).frame.set_index(["architecture", "dataset", "method"])
    assert frame.paper_mean["resnet18", "cifar100", "cs-kd"] == 21.99
    assert frame.paper_mean[:, "mit67"].isna().all()
    assert "Not comparable with the paper: mit67 (the dataset is incomplete)." in metric_table(paper, ERROR).notes
    for metric in TRACKED:
        table = metric_table(mini, metric)
        assert table.intro[0] == "Profile mini: not comparable with the paper."
        assert "20 classes x 100 training images, resnet10 of width 16" in table.intro[1]
        assert "paper" not in {column.header for column in table.columns}
        assert not any(column.startswith("paper_") for column in table.frame)


def test_a_subset_of_all_classes_is_said_so(store):
    [mini] = store.load(["table1-mini"])
    runs = mini.runs.assign(**{"params.subset.classes": "None", "params.subset.images_per_class": "30"})
    table = metric_table(dataclasses.replace(mini, runs=runs), ERROR)
    assert "Trained: cifar100: all classes x 30 training images, resnet10" in table.intro[1]


def test_one_incomparable_run_takes_the_paper_from_its_cell(store):
    [experiment] = store.load(["table1"])
    runs = experiment.runs
    columns = ["comparable", "comparable_reason"]
    runs.loc[runs.run == "cifar100/resnet18/cs-kd/seed1", columns] = [False, "images too small"]
    frame = metric_table(experiment, ERROR).frame
    first, second = frame[(frame.dataset == "cifar100") & (frame.architecture == "resnet18")].itertuples()
    assert (first.paper_mean, second.comparable_reason) == (24.71, "images too small")
    assert pd.isna(second.paper_mean)


def test_changed_settings_are_said_to_be_changed(store):
    [experiment] = store.load(["table1-mini"])
    custom = dataclasses.replace(experiment, name="table1-mini-custom")
    intro = metric_table(custom, ERROR).intro
    assert intro[0] == "Profile mini with settings changed from the recipe: not comparable with the paper."
    custom = dataclasses.replace(custom, overrides="width=8, schedule.epochs=2")
    message = "Profile mini with settings changed from the recipe (width=8, schedule.epochs=2): not comparable"
    assert metric_table(custom, ERROR).intro[0].startswith(message)
    assert introduction(*pools([custom]))[0].startswith(message)


def test_a_method_that_is_not_the_papers_is_said_to_be_none_of_them():
    methods = ("cross-entropy", "mine", "label-smoothing+cs-kd")
    cells = {f"cifar100/resnet18/{method}": {0: 20.0} for method in methods}
    experiment = made_up_experiment(cells, "mini", {}, "table1-mini")
    experiment.cells["hyperparameter_source"] = ["", "ours", "ours"]
    table = metric_table(experiment, ERROR)
    [rows] = table.blocks[0].groups
    assert [row[1] for row in rows] == [
        "cross-entropy",
        "mine \N{DOUBLE DAGGER}",
        "label-smoothing+cs-kd \N{DOUBLE DAGGER}",
    ]
    assert "\N{DOUBLE DAGGER} not one of the paper's methods." in table.notes
    assert not any("hyper-parameters ours" in note for note in table.notes)
    assert r"$\ddagger$ not one of the paper's methods." in to_latex(table)


def test_means_leave_out_what_has_no_value_and_name_it(store):
    [mini] = store.load(["table1-mini"])
    left_out = {
        "top1_error": "cifar100/resnet10/cs-kd/seed1: test/top1_error is missing or NaN: left out of the mean.",
        "ece": "cifar100/resnet10/cs-kd/seed0: test/ece is missing or NaN: left out of the mean.",
        "nll": "cifar100/resnet10/cs-kd/seed2: test/nll is infinite: left out of the mean.",
    }
    for metric in TRACKED:
        table = metric_table(mini, metric)
        cs_kd = table.frame.set_index("method").loc["cs-kd"]
        assert cs_kd.n == (2 if metric.name in left_out else 3)
        if metric.name in left_out:
            assert left_out[metric.name] in table.notes
    assert (
        "cifar100/resnet10/cs-kd/seed1: best/nll is missing or NaN: left out of the mean."
        in metric_table(mini, next(metric for metric in TRACKED if metric.name == "nll")).notes
    )


def test_runs_without_predictions_are_named(store, tmp_path):
    [mini] = store.load(["table1-mini"])
    cells, notes = cell_reliabilities(mini, store, tmp_path)
    assert [cell.seeds for cell in cells] == [3, 2]
    assert notes == ["cifar100/resnet10/cs-kd/seed1 has no predictions.npz: not in the reliability tables."]


def test_pooled_bins_are_those_of_all_samples(store, tmp_path):
    [mini] = store.load(["table1-mini"])
    predictions = [store.load_predictions(run, tmp_path) for _, run in mini.done.iloc[:3].iterrows()]
    logits, labels = (np.concatenate([getattr(each, name) for each in predictions]) for name in ("logits", "labels"))
    result = pooled([reliability_bins(each.logits, each.labels, 20) for each in predictions])
    assert_same_bins(result, reliability_bins(logits, labels, 20))
    assert_same_bins(coarser(result, 10), reliability_bins(logits, labels, 10))
    assert ece(result) == pytest.approx(expected_calibration_error(logits, labels), abs=1e-12)


def assert_same_bins(bins, expected):
    for name in ("lower", "upper", "count", "confidence", "accuracy"):
        np.testing.assert_allclose(getattr(bins, name), getattr(expected, name), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_of_two_methods_fit_a_terminal_of_80_columns(store, width):
    [experiment] = store.load(["table1"])
    output = io.StringIO()
    show(metric_table(experiment, ERROR), Console(file=output, width=width))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    cells = ("cs-kd", "21.99 ± 0.13", "22.25 ± 0.25", "22.12 ± 0.25", "3", "\N{MINUS SIGN}10.1 %")
    assert re.search(" +".join(cells), text)


def test_latex_is_whole(written):
    folder, _ = written
    for path in folder.rglob("*.tex"):
        text = path.read_text()
        assert text.isascii()
        assert not re.search(r"(?<!\\)[&_#](?![^\n]*\\\\)|(?<!\\)%(?! needs)", text)
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        for environment in ("table", "tabular", "minipage"):
            assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}")
        for specification, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
            rows = [line for line in body.splitlines() if line.endswith(r" \\")]
            assert rows
            assert all(len(re.findall(r"(?<!\\)&", row)) == len(specification) - 1 for row in rows)
            assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_special_characters_are_escaped():
    row = (r"50 % of a_b & $c\d {e} #~^ 1 ± 2", "x | y *z*")
    table = Table("T_1", (Column("a|b"), Column("c")), (Block("", ((row,),)),), pd.DataFrame())
    assert r"50 \% of a\_b \& \$c\textbackslash{}d \{e\} \#\textasciitilde{}\textasciicircum{} 1 $\pm$ 2" in to_latex(
        table
    )
    assert r"x \| y \*z\*" in to_markdown(table)
    assert r"a\|b" in to_markdown(table)


def test_many_blocks_do_not_exceed_the_floats_of_latex():
    blocks = tuple(Block(str(number), ((("x",),),)) for number in range(25))
    text = to_latex(Table("T", (Column("a"),), blocks, pd.DataFrame()))
    assert max(part.count(r"\begin{table}") for part in text.split(r"\clearpage")) == 10


def test_help_says_what_is_written_where(capsys):
    with pytest.raises(SystemExit, match="0"):
        tables.main(["--help"])
    assert "RESULTS_DIR" in capsys.readouterr().out


def test_a_results_folder_that_cannot_be_written_is_named(store_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    blocked = tmp_path / "results"
    blocked.write_text("a file")
    with pytest.raises(UserError, match=r"results.* cannot be written \(.*\): set RESULTS_DIR or --results-dir"):
        tables.main(["--experiment", "table1", "--results-dir", str(blocked)])
