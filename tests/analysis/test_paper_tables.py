"""The paper's own tables and figure 4, from a store of made-up runs that several grids have launched."""

import csv
import dataclasses
import io
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from rich.console import Console

from analysis.commands import tables
from analysis.load.pools import PAPER, Pool, pools
from analysis.load.store import Store
from analysis.paper.domains import domain_table
from analysis.paper.paper_tables import paper_table, paper_tables
from analysis.paper.published import PUBLISHED
from analysis.tables.format import show, to_csv, to_latex, to_markdown
from analysis.tables.model import Best, Block, Column, Table
from cskd.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "paper"
SETTINGS = {"width": 64, "inputs.image_size": 32, "schedule.epochs": 200}
MINI = {"width": 16, "inputs.image_size": 32, "schedule.epochs": 60}
DOMAINS = ("cub200", "dogs", "mit67")
LINES = ("paper", "our last epoch", "our best test epoch", "difference", "vs cross-entropy", "n")


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory, made_up):
    """Runs of several grids, profiles and changes to them: see the comments."""
    folder = tmp_path_factory.mktemp("pooled")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)

    def grid(name, profile, settings, comparable="yes"):
        return made_up(client, folder, name, profile, settings, comparable)

    def seeds(of, cell, values, **more):
        """A run a value: its error; the ECE is a third of it."""
        for seed, error in enumerate(values):
            of.run(cell, seed, error, error / 3, predictions=False, **more)

    table1 = grid("table1", "paper", SETTINGS)
    seeds(table1, table1.cell("cifar100", "cross-entropy"), [24.5, 24.75, 25])
    seeds(table1, table1.cell("cifar100", "cs-kd", hyperparameter_source="paper"), [22, 22.25, 22.5])
    # one seed, and as good as cs-kd to the second decimal
    seeds(table1, table1.cell("cifar100", "label-smoothing", seeds="0", hyperparameter_source="ours"), [22.254])
    incomplete, failed = table1.cell("cub200", "cross-entropy"), table1.cell("cub200", "cs-kd")
    seeds(table1, incomplete, [46.5, 45.5], git_dirty="true")
    table1.run(incomplete, 2, state="running")
    table1.run(failed, 0, state="failed", reason="the loss is NaN & 100% lost at epoch_3")
    small = "no: the dataset is incomplete"
    seeds(table1, table1.cell("mit67", "cross-entropy", seeds="0", comparable_with_paper=small), [40])
    table1.run(table1.cell("dogs", "cs-kd", hyperparameter_source="ours"), 0, state="interrupted")
    seeds(table1, table1.cell("cifar100", "cross-entropy", architecture="densenet121"), [22, 23, 24])

    table6 = grid("table6", "paper", SETTINGS)
    seeds(table6, table6.cell("cifar100", "cross-entropy", seeds="0"), [24.5])  # table1's own run
    seeds(table6, table6.cell("cifar100", "cs-kd-e", hyperparameter_source="ours"), [23, 23, 23])

    table4 = grid("table4", "paper", SETTINGS)
    seeds(table4, table4.cell("cifar100", "cross-entropy", architecture="resnet10"), [26, 27, 28])
    kd = table4.cell("cifar100", "kd", architecture="resnet10", hyperparameter_source="ours")
    seeds(table4, kd, [25, 26])
    table4.run(kd, 2, 99, 9, predictions=False, metrics={"test/top1_error": math.nan})
    broken = table4.cell("cifar100", "kd+cs-kd", architecture="resnet10", seeds="0")
    table4.run(broken, 0, 99, 9, predictions=False, metrics={"test/top1_error": math.inf})

    figure4 = grid("figure4", "paper", SETTINGS)
    for method, count, first in (("cross-entropy", 3, 60), ("cs-kd", 1, 50)):
        cell = figure4.cell("merged", method)
        for seed in range(count):
            run = figure4.run(cell, seed, first + seed, 10, predictions=False)
            for number, domain in enumerate(DOMAINS):
                values = {"domain_accuracy": 100 - first / 20 - number + seed, "top1_error": first + 2 * number + seed}
                for name, value in values.items():
                    for key, tracked in (("test", value), ("best", value - 0.5)):
                        client.log_batch(run, [Metric(f"{key}/{name}_{domain}", tracked, 0, 0)])

    other_pools(grid, seeds)
    return uri


def other_pools(grid, seeds):
    """Tuned, small and changed: what the paper's numbers do not stand beside."""
    tuned = grid("table1-tuned", "paper", SETTINGS)
    seeds(tuned, tuned.cell("cifar100", "cross-entropy"), [24, 25, 26])
    seeds(tuned, tuned.cell("cifar100", "cs-kd", tuned="lambda_cls 2 of study s1"), [20, 21, 22])

    mini = "no: profile mini"
    table1 = grid("table1-mini", "mini", MINI, mini)
    for dataset in ("cub200", "cifar100"):
        seeds(table1, table1.cell(dataset, "cross-entropy", architecture="resnet10"), [50, 51, 52])
    seeds(table1, table1.cell("cifar100", "cs-kd", architecture="resnet10", hyperparameter_source="ours"), [45, 46, 47])
    seeds(table1, table1.cell("cifar100", "cross-entropy", architecture="densenet41"), [48])
    table4 = grid("table4-mini", "mini", MINI, mini)
    seeds(table4, table4.cell("cifar100", "cross-entropy", architecture="resnet10"), [50, 51, 52])
    seeds(table4, table4.cell("cifar100", "cs-kd", architecture="densenet41", seeds="0"), [44])  # the teacher
    seeds(table4, table4.cell("cifar100", "kd", architecture="resnet10", seeds="0"), [47])

    # its learning rate is not that of its cross-entropy
    custom = grid("table1-mini-custom-1a2b3c", "mini", MINI, mini)
    seeds(custom, custom.cell("cifar100", "cross-entropy", architecture="resnet10"), [50, 51, 52])
    custom.settings = MINI | {"schedule.lr": 0.5}
    seeds(custom, custom.cell("cifar100", "cs-kd", architecture="resnet10"), [45, 46, 47])

    demo = grid("demo", "demo", MINI, "no: profile demo")
    seeds(demo, demo.cell("digits", "cross-entropy", architecture="resnet10"), [9])


@pytest.fixture(scope="module")
def by_name(store_uri) -> dict[str, Pool]:
    return {pool.name: pool for pool in pools(Store(store_uri).load())}


@pytest.fixture(scope="module")
def paper(by_name) -> dict[str, Table]:
    made = {f"table{number}": table for number, table in paper_tables(by_name[PAPER]).items()}
    return made | {"figure4": domain_table(by_name[PAPER])}


@pytest.fixture(scope="module")
def nothing_run(by_name) -> Pool:
    pool = by_name[PAPER]
    return dataclasses.replace(pool, cells=pool.cells[:0], runs=pool.runs[:0])


def texts(table: Table, heading: str) -> dict[tuple[str, str, str], str]:
    """What a block says, by method, line and column; the line "" has the marks."""
    [block] = [block for block in table.blocks if block.heading == heading]
    headers = [column.header for column in table.columns][1:]
    found = {}
    for group in block.groups:
        method, *_ = group[0]
        for row in group:
            line = "" if row is group[0] else row[0].strip("\N{NO-BREAK SPACE}")
            found |= {(method, line, header): text for header, text in zip(headers, row[1:], strict=True)}
    return found


def terminal(table: Table, width: int) -> str:
    output = io.StringIO()
    show(table, Console(file=output, width=width, highlight=False))
    return output.getvalue()


def compare(text: str, golden: Path):
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(text.encode())
    assert text.encode() == golden.read_bytes(), f"differs from {golden.name}: see this module's golden tests"


@pytest.mark.parametrize("name", ["table1", "table6", "figure4"])
def test_tables_are_the_golden_ones(paper, name):
    """Byte by byte. Made anew by UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_paper_tables.py"""
    table = paper[name]
    for ending, text in (
        *(("csv", to_csv(table.frame)), ("md", to_markdown(table)), ("tex", to_latex(table))),
        ("txt", terminal(table, 100)),
    ):
        compare(text, GOLDEN / f"{name}.{ending}")


@pytest.mark.parametrize(("pool", "number"), [("paper-tuned", 1), ("mini", 1), ("mini", 4)])
def test_tables_of_other_pools_are_the_golden_ones(by_name, pool, number):
    """Byte by byte. Made anew by UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_paper_tables.py"""
    table = paper_table(number, by_name[pool])
    compare(terminal(table, 100), GOLDEN / f"{pool}-table{number}.txt")
    compare(to_csv(table.frame), GOLDEN / f"{pool}-table{number}.csv")


def test_every_number_of_the_paper_is_in_its_cell_when_nothing_was_run(nothing_run):
    titles = {
        "top1_error": "Top-1 error (%)",
        "top5_error": "Top-5 error (%)",
        "ece": "ECE (%, 20 bins)",
        "recall_at_1": "R@1 (%)",
    }
    made = paper_tables(nothing_run)
    assert list(made) == [1, 2, 3, 4, 5, 6]
    with PUBLISHED.open() as file:
        numbers = list(csv.DictReader(file))
    shown = 0
    for number in numbers:
        message = texts(made[int(number["table"])], f"{titles[number['metric']]}, {number['architecture']}")
        text = f"{number['mean']}±{number['std']}".rstrip("±")
        assert message[number["method"], "paper", number["dataset"]] == text
        assert message[number["method"], "our last epoch", number["dataset"]] == "not run"
        shown += 1
    cells = [cell for table in made.values() for block in table.blocks for group in block.groups for cell in group[1]]
    assert len([cell for cell in cells if cell[0].isdigit()]) == shown == 231


@pytest.mark.parametrize(
    ("number", "heading", "cell", "text"),
    [
        (1, "Top-1 error (%), resnet18", ("cs-kd", "mit67"), "40.45±0.45"),
        (1, "Top-1 error (%), densenet121", ("adacos", "cub200"), "30.84±0.38"),
        (2, "Top-1 error (%), resnet18", ("ddgsd", "tinyimagenet"), "41.48±0.12"),
        (3, "Top-1 error (%), resnet18", ("mixup+cs-kd", "dogs"), "29.93±0.14"),
        (4, "Top-1 error (%), resnet10", ("kd+cs-kd", "cifar100"), "25.58±0.16"),
        (5, "Top-1 error (%), resnext101_32x4d", ("cs-kd", "imagenet"), "21.2"),
        (6, "ECE (%, 20 bins), resnet18", ("cs-kd-e", "mit67"), "8.06±1.90"),
        (6, "R@1 (%), resnet18", ("virtual-softmax", "tinyimagenet"), "44.69±0.58"),
    ],
)
def test_numbers_of_the_paper_by_hand(nothing_run, number, heading, cell, text):
    method, dataset = cell
    assert texts(paper_table(number, nothing_run), heading)[method, "paper", dataset] == text


def test_rows_and_columns_stand_in_the_papers_order(nothing_run):
    made = paper_tables(nothing_run)
    regularisers = ["cross-entropy", "adacos", "virtual-softmax", "max-entropy", "label-smoothing", "cs-kd"]
    rows = {
        1: regularisers,
        2: ["cross-entropy", "ddgsd", "byot", "cs-kd"],
        3: ["cross-entropy", "cs-kd", "mixup", "mixup+cs-kd"],
        4: ["cross-entropy", "cs-kd", "kd", "kd+cs-kd"],
        5: ["cross-entropy", "cs-kd"],
        6: [*regularisers, "cs-kd-e"],
    }
    for number, table in made.items():
        datasets = ["imagenet"] if number == 5 else ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67"]
        assert [column.header for column in table.columns] == ["method", *datasets]
        for block in table.blocks:
            assert [group[0][0] for group in block.groups] == rows[number]
    assert [block.heading for block in made[6].blocks] == [
        "Top-5 error (%), resnet18",
        "ECE (%, 20 bins), resnet18",
        "R@1 (%), resnet18",
    ]


def test_a_cell_says_what_ours_came_to_beside_the_paper(paper):
    message = texts(paper["table1"], "Top-1 error (%), resnet18")
    assert [message["cs-kd", line, "cifar100"] for line in LINES] == [
        *("21.99±0.13", "22.25±0.25", "22.12±0.25", "+0.26", "\N{MINUS SIGN}10.1 %", "3")
    ]
    assert [message["cross-entropy", line, "cub200"] for line in LINES if line != "vs cross-entropy"] == [
        *("46.00±1.43", "46.00±0.71", "45.88±0.71", "+0.00", "2/3 seeds")
    ]
    assert message["cs-kd", "our last epoch", "cub200"] == "failed"
    assert message["cs-kd", "our last epoch", "dogs"] == "interrupted"
    assert message["adacos", "our last epoch", "cifar100"] == "not run"
    # only what has something to say: no method but these two has a number
    assert {line for method, line, _ in message if method == "adacos"} == {"", "paper", "our last epoch"}
    assert ("cross-entropy", "vs cross-entropy", "cifar100") not in message


def test_the_frame_has_both_differences_and_both_relative_changes(paper, by_name):
    frame = paper["table1"].frame.set_index(["architecture", "dataset", "method"])
    row = frame.loc["resnet18", "cifar100", "cs-kd"]
    runs = by_name[PAPER].runs_of("cifar100", "resnet18", "cs-kd")
    last, best = (np.mean([run[name] for _, run in runs.iterrows()]) for name in ("test/top1_error", "best/top1_error"))
    assert (row.difference, row.best_difference) == pytest.approx((last - 21.99, best - 21.99))
    assert row.relative_change == pytest.approx((last - 24.75) / 24.75)
    assert row.paper_relative_change == pytest.approx((21.99 - 24.71) / 24.71)
    assert len(frame) == 60


def test_the_paper_stands_beside_what_can_be_compared_and_what_was_not_launched(paper):
    message = texts(paper["table1"], "Top-1 error (%), resnet18")
    assert message["cross-entropy", "paper", "mit67"] == "\N{EN DASH}"
    assert message["cross-entropy", "our last epoch", "mit67"] == "40.00±nan"
    assert message["cross-entropy", "difference", "mit67"] == ""
    assert message["cs-kd", "paper", "mit67"] == "40.45±0.45"
    assert "Not comparable with the paper: mit67 (the dataset is incomplete)." in paper["table1"].notes


def test_a_cell_counts_once_whatever_grids_have_launched_it(paper):
    message = texts(paper["table6"], "Top-5 error (%), resnet18")
    assert message["cross-entropy", "n", "cifar100"] == "3"
    assert message["cs-kd-e", "vs cross-entropy", "cifar100"] == "\N{MINUS SIGN}7.1 %"


def bold(table: Table, heading: str, line: str, column: str) -> list[str]:
    found = texts(table, heading).items()
    return [method for (method, *place), text in found if isinstance(text, Best) and place == [line, column]]


def test_the_best_of_a_column_is_bold_and_ties_all_are(paper):
    table, heading = paper["table1"], "Top-1 error (%), resnet18"
    assert bold(table, heading, "our last epoch", "cifar100") == ["label-smoothing", "cs-kd"]
    assert bold(table, heading, "paper", "cifar100") == ["cs-kd"]
    assert "Bold, but of one seed (n = 1): cifar100/resnet18/label-smoothing." in table.notes
    # one number alone is not the best of anything
    assert bold(table, heading, "our last epoch", "cub200") == []
    # max-entropy is the paper's best of DenseNet-121 on no set, label-smoothing neither
    assert bold(table, "Top-1 error (%), densenet121", "paper", "dogs") == ["cs-kd"]
    assert bold(paper["table2"], heading, "paper", "tinyimagenet") == ["ddgsd"]


def test_more_is_better_for_recall(paper):
    table = paper["table6"]
    assert bold(table, "R@1 (%), resnet18", "paper", "cifar100") == ["max-entropy"]
    assert bold(table, "R@1 (%), resnet18", "paper", "mit67") == ["cs-kd"]
    assert bold(table, "R@1 (%), resnet18", "our last epoch", "cifar100") == ["label-smoothing", "cs-kd"]
    assert bold(table, "ECE (%, 20 bins), resnet18", "paper", "tinyimagenet") == ["label-smoothing"]
    assert "R@1 (%): higher is better." in table.notes
    assert not any("higher is better." in note for note in paper["table1"].notes if not note.startswith("Bold: "))


def test_the_papers_best_is_bold_only_where_it_is_shown(by_name):
    """The second best of those that can be compared is not the paper's best."""
    pool = by_name[PAPER]
    is_best = pool.cells.cell == "cifar100/resnet18/cs-kd"
    cells = pool.cells.assign(comparable_with_paper=pool.cells.comparable_with_paper.mask(is_best, "no: other"))
    table = paper_table(1, dataclasses.replace(pool, cells=cells))
    assert bold(table, "Top-1 error (%), resnet18", "paper", "cifar100") == []


def test_bold_is_bold_in_every_form():
    row = (Best("1±2*"), "\N{NO-BREAK SPACE}3")
    table = Table("T", (Column("a"), Column("b")), (Block("", ((row,),)),), pd.DataFrame())
    assert r"\textbf{1$\pm$2*} & ~3 \\" in to_latex(table)
    assert r"| **1±2\*** | &nbsp;3" in to_markdown(table)
    output = io.StringIO()
    show(table, Console(file=output, force_terminal=True, color_system="standard"))
    assert "\x1b[1m1±2*\x1b[0m" in output.getvalue()


def test_hyper_parameters_that_are_ours_and_tuned_ones_are_marked(paper, by_name):
    message = texts(paper["table1"], "Top-1 error (%), resnet18")
    assert (message["cs-kd", "", "cifar100"], message["cs-kd", "", "dogs"]) == ("", "\N{DAGGER}")
    assert any(note.startswith("\N{DAGGER} hyper-parameters ours") for note in paper["table1"].notes)
    table = paper_table(1, by_name["paper-tuned"])
    assert texts(table, "Top-1 error (%), resnet18")["cs-kd", "", "cifar100"] == "(tuned)"
    assert "Tuned: cifar100/resnet18/cs-kd: lambda_cls 2 of study s1." in table.notes


def test_what_has_no_value_is_left_out_and_named(paper):
    message = texts(paper["table4"], "Top-1 error (%), resnet10")
    assert message["kd", "our last epoch", "cifar100"] == "25.50±0.71"
    assert message["kd", "n", "cifar100"] == "2/3 seeds"
    assert message["kd+cs-kd", "our last epoch", "cifar100"] == "no value"
    name = "cifar100/resnet10/kd/seed2: test/top1_error is missing or NaN: left out of the mean."
    assert name in paper["table4"].notes
    assert not any("resnet10" in note for note in paper["table1"].notes)


def test_unfinished_runs_and_uncommitted_changes_are_named(paper):
    notes = " ".join(paper["table1"].notes)
    assert "Commit: 1111111111aa (dirty)." in notes
    assert "cub200/resnet18/cross-entropy/seed2 running" in notes
    assert "cub200/resnet18/cs-kd/seed0 failed (the loss is NaN & 100% lost at epoch_3)" in notes
    assert "(dirty)" not in " ".join(paper["table4"].notes)


def test_other_pools_have_no_paper_numbers(by_name):
    for name, pool in by_name.items():
        if name == PAPER:
            continue
        for table in paper_tables(pool).values():
            assert not any(column.startswith("paper") or "difference" in column for column in table.frame)
            assert table.intro
            lines = {row[0].strip() for block in table.blocks for group in block.groups for row in group[1:]}
            assert lines <= {"our last epoch", "vs cross-entropy", "n"}
    [sentence] = paper_table(1, by_name["paper-tuned"]).intro
    assert sentence.startswith("Tuned hyper-parameters")
    assert "with settings changed from the recipe" in paper_table(1, by_name["mini-custom-1a2b3c"]).intro[0]


def test_other_pools_have_the_datasets_and_networks_that_they_have_launched(by_name):
    made = paper_tables(by_name["mini"])
    assert list(made) == [1, 2, 3, 4, 6]  # 5 is of ImageNet alone
    assert [column.header for column in made[1].columns] == ["method", "cifar100", "cub200"]
    assert [block.heading for block in made[1].blocks] == [
        "Top-1 error (%), resnet10",
        "Top-1 error (%), densenet41",
    ]
    # the teacher's network is not one of table 4's, though it has cross-entropy by table 1
    assert [block.heading for block in made[4].blocks] == ["Top-1 error (%), resnet10"]
    assert paper_tables(by_name["demo"]) == {}  # cross-entropy alone


def test_a_relative_change_needs_the_same_settings(by_name):
    frame = paper_table(1, by_name["mini-custom-1a2b3c"]).frame.set_index("method")
    assert frame.last_mean["cs-kd"] == 46
    assert math.isnan(frame.relative_change["cs-kd"])


def test_figure_4_has_each_domains_accuracy_and_error(paper, by_name):
    accuracy, error = (texts(paper["figure4"], block.heading) for block in paper["figure4"].blocks)
    assert [accuracy["cross-entropy", line, "dog (dogs)"] for line in LINES if line != "vs cross-entropy"] == [
        *("94.5", "97.0±1.0", "96.5±1.0", "+2.5", "3")
    ]
    assert accuracy["cs-kd", "paper", "indoor (mit67)"] == "98.8"
    assert error["cs-kd", "paper", "bird (cub200)"] == "29.15"
    assert [error["cs-kd", line, "indoor (mit67)"] for line in LINES] == [
        *("56.02", "54.00±nan", "53.50±nan", "\N{MINUS SIGN}2.02", "\N{MINUS SIGN}16.9 %", "1/3 seeds")
    ]
    for block in paper["figure4"].blocks:
        assert bold(paper["figure4"], block.heading, "paper", "bird (cub200)") == ["cs-kd"]
    assert domain_table(by_name["mini"]) is None


def test_figure_4_is_there_when_nothing_was_run(nothing_run):
    [accuracy, _] = domain_table(nothing_run).blocks
    assert accuracy.groups[1] == (
        ("cs-kd", "", "", ""),
        ("\N{NO-BREAK SPACE}" * 2 + "paper", "99.3", "97.6", "98.8"),
        ("\N{NO-BREAK SPACE}" * 2 + "our last epoch", "not run", "not run", "not run"),
    )


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal_whole(paper, width):
    for table in paper.values():
        text = terminal(table, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for block in table.blocks:
            for group in block.groups:
                for row in group:
                    assert re.search(r" +".join(re.escape(cell) for cell in row if cell), text), row


def test_latex_is_balanced(paper):
    for table in paper.values():
        text = to_latex(table)
        assert text.isascii()
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        for environment in ("table", "tabular"):
            count = text.count(rf"\begin{{{environment}}}")
            assert count == text.count(rf"\end{{{environment}}}") == len(table.blocks)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_and_fits_the_page(paper, tmp_path):
    parts = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    for name, table in paper.items():
        (tmp_path / f"{name}.tex").write_text(to_latex(table))
        parts += [rf"\input{{{name}}}", r"\clearpage"]
    (tmp_path / "all.tex").write_text("\n".join([*parts, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("booktabs is not installed")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text()
    assert not re.search(r"Overfull .hbox|Float too large", log)


def run(uri, arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        output = io.StringIO()
        patch.setattr("sys.stdout", output)
        patch.setattr(tables, "write", lambda *_: ([], []))  # what is of one experiment has tests of its own
        assert tables.main(arguments) == 0
    return output.getvalue()


def test_the_command_writes_the_tables_of_every_pool_and_prints_what_is_asked(store_uri, tmp_path):
    printed = run(store_uri, ["--results-dir", str(tmp_path), "--show", "table1", "figure4"])
    written = {str(path.relative_to(tmp_path / "paper")) for path in (tmp_path / "paper").rglob("*.*")}
    names = [*(f"paper/table{number}" for number in range(1, 7)), "paper/figure4"]
    names += [f"{pool}/table{number}" for pool in ("mini", "mini-custom-1a2b3c", "paper-tuned") for number in (1, 2, 3)]
    names += [f"{pool}/table{number}" for pool in ("mini", "mini-custom-1a2b3c", "paper-tuned") for number in (4, 6)]
    assert written == {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}
    for name in ("table1", "table6", "figure4"):
        assert (tmp_path / "paper" / "paper" / f"{name}.md").read_bytes() == (GOLDEN / f"{name}.md").read_bytes()
    assert (GOLDEN / "table1.txt").read_text() in printed
    assert (GOLDEN / "figure4.txt").read_text() in printed
    assert "Table 2" not in printed
    assert "table1, demo: no method of it was launched.\n" in printed
    assert f"Written to {tmp_path / 'paper' / 'paper'}:\n" in printed


def test_tables_of_all_experiments_are_not_made_of_some(store_uri, tmp_path):
    for some in (["--experiment", "table6"], ["--latest"]):
        run(store_uri, ["--results-dir", str(tmp_path), *some])
    assert not (tmp_path / "paper").exists()
    with pytest.raises(UserError, match=r"^table1: made of all experiments; leave out --experiment and --latest$"):
        run(store_uri, ["--experiment", "table1", "--show", "table1"])
    with pytest.raises(UserError, match=r"unknown table 'table7'"):
        run(store_uri, ["--show", "table7"])
