"""The paper's tables and figure 4, from a pool of made-up runs of several grids."""

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from builders import Grid
from golden import compare
from rich.console import Console

from analysis.load.pools import Pool, pools
from analysis.paper.published import PUBLISHED
from analysis.tables.format import show, to_csv, to_latex
from analysis.tables.model import Best, Table
from analysis.tables.paper import paper_tables
from cskd.utils.numbers import COMPACT, mean_std_text

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {"width": 64, "inputs.image_size": 32, "schedule.epochs": 200}
LINES = ("paper", "our last epoch", "our best test epoch", "difference", "vs cross-entropy", "n")
ERROR = "Top-1 error (%), resnet18"
MINUS = "\N{MINUS SIGN}"


def compact(mean: float, std: float, decimals: int = 2) -> str:
    return mean_std_text(mean, std, decimals, separator=COMPACT)


def paper_grids() -> list[Grid]:
    table1 = Grid("table1", "paper", SETTINGS)
    table1.train(table1.cell("cifar100", "cross-entropy"), [24.5, 24.75, 25])
    table1.train(table1.cell("cifar100", "cs-kd", hyperparameter_source="paper"), [22, 22.25, 22.5])
    # one seed, equal to cs-kd as printed
    table1.train(table1.cell("cifar100", "label-smoothing", seeds="0", hyperparameter_source="ours"), [22.254])
    incomplete, failed = table1.cell("cub200", "cross-entropy"), table1.cell("cub200", "cs-kd")
    table1.train(incomplete, [46.5, 45.5], git_dirty="true")
    table1.run(incomplete, 2, state="running")
    table1.run(failed, 0, state="failed", reason="the loss is NaN & 100% lost at epoch_3")
    small = table1.cell("mit67", "cross-entropy", seeds="0", comparable_reason="the dataset is incomplete")
    table1.train(small, [40])
    table1.run(table1.cell("dogs", "cs-kd", hyperparameter_source="ours"), 0, state="interrupted")
    table1.train(table1.cell("cifar100", "cross-entropy", architecture="densenet121"), [22, 23, 24])

    table6 = Grid("table6", "paper", SETTINGS)
    table6.train(table6.cell("cifar100", "cross-entropy", seeds="0"), [24.5])  # the run of table 1
    table6.train(table6.cell("cifar100", "cs-kd-e", hyperparameter_source="ours"), [23, 23, 23])

    table4 = Grid("table4", "paper", SETTINGS)
    table4.train(table4.cell("cifar100", "cross-entropy", architecture="resnet10"), [26, 27, 28])
    kd = table4.cell("cifar100", "kd", architecture="resnet10", hyperparameter_source="ours")
    table4.train(kd, [25, 26])
    table4.trained(kd, 2, 99, 9, metrics={"test/top1_error": math.nan})
    broken = table4.cell("cifar100", "kd+cs-kd", architecture="resnet10", seeds="0")
    table4.trained(broken, 0, 99, 9, metrics={"test/top1_error": math.inf})

    figure4 = Grid("figure4", "paper", SETTINGS)
    for method, count, first in (("cross-entropy", 3, 60), ("cs-kd", 1, 50)):
        cell = figure4.cell("merged", method)
        for seed in range(count):
            run = figure4.trained(cell, seed, first + seed, 10)
            for number, domain in enumerate(("cub200", "dogs", "mit67")):
                values = {"domain_accuracy": 100 - first / 20 - number + seed, "top1_error": first + 2 * number + seed}
                for name, value in values.items():
                    run.metrics += [(f"test/{name}_{domain}", value, 0), (f"best/{name}_{domain}", value - 0.5, 0)]
    return [table1, table6, table4, figure4]


@pytest.fixture(scope="module")
def pool() -> Pool:
    [pool] = pools([grid.experiment() for grid in paper_grids()])
    return pool


@pytest.fixture(scope="module")
def paper(pool) -> dict[str, Table]:
    return paper_tables(pool)


@pytest.fixture(scope="module")
def nothing_run(pool) -> dict[str, Table]:
    return paper_tables(dataclasses.replace(pool, cells=pool.cells[:0], runs=pool.runs[:0]))


def texts(table: Table, heading: str) -> dict[tuple[str, str, str], str]:
    """Return a block's texts by method, line and column; the line "" has the footnote marks."""
    [block] = [block for block in table.blocks if block.heading == heading]
    headers = [column.header for column in table.columns][1:]
    found = {}
    for group in block.groups:
        method, *_ = group[0]
        for row in group:
            line = "" if row is group[0] else row[0].strip("\N{NO-BREAK SPACE}")
            found |= {(method, line, header): text for header, text in zip(headers, row[1:], strict=True)}
    return found


def bold(table: Table, heading: str, line: str, column: str) -> list[str]:
    cells = texts(table, heading).items()
    return [method for (method, *rest), text in cells if isinstance(text, Best) and rest == [line, column]]


def terminal(table: Table, width: int) -> str:
    output = io.StringIO()
    show(table, Console(file=output, width=width, highlight=False))
    return output.getvalue()


def test_table1_equals_the_golden_files(paper):
    """Update them with UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/tables/test_paper.py"""
    table = paper["table1"]
    for ending, text in (("csv", to_csv(table.frame)), ("tex", to_latex(table)), ("txt", terminal(table, 100))):
        compare(text, GOLDEN / f"table1.{ending}")


def test_layout_has_every_number_of_the_paper_if_nothing_was_run(nothing_run):
    titles = {
        "top1_error": "Top-1 error (%)",
        "top5_error": "Top-5 error (%)",
        "ece": "ECE (%, 20 bins)",
        "recall_at_1": "R@1 (%)",
    }
    assert list(nothing_run) == [*(f"table{number}" for number in range(1, 7)), "figure4"]
    with PUBLISHED.open() as file:
        numbers = [row for row in csv.DictReader(file) if row["table"] != "figure4"]
    for number in numbers:
        found = texts(nothing_run[f"table{number['table']}"], f"{titles[number['metric']]}, {number['architecture']}")
        decimals = len(number["mean"].partition(".")[2])
        text = compact(float(number["mean"]), float(number["std"] or "nan"), decimals)
        assert found[number["method"], "paper", number["dataset"]] == text
        assert found[number["method"], "our last epoch", number["dataset"]] == "not run"
    tables = [table for name, table in nothing_run.items() if name != "figure4"]
    cells = [cell for table in tables for block in table.blocks for group in block.groups for cell in group[1]]
    assert len([cell for cell in cells if cell[0].isdigit()]) == len(numbers) == 231


def test_rows_and_columns_have_the_order_of_the_paper(nothing_run):
    regularisers = ["cross-entropy", "adacos", "virtual-softmax", "max-entropy", "label-smoothing", "cs-kd"]
    rows = {
        "table1": regularisers,
        "table2": ["cross-entropy", "ddgsd", "byot", "cs-kd"],
        "table3": ["cross-entropy", "cs-kd", "mixup", "mixup+cs-kd"],
        "table4": ["cross-entropy", "cs-kd", "kd", "kd+cs-kd"],
        "table5": ["cross-entropy", "cs-kd"],
        "table6": [*regularisers, "cs-kd-e"],
    }
    for name, methods in rows.items():
        datasets = ["imagenet"] if name == "table5" else ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67"]
        assert [column.header for column in nothing_run[name].columns] == ["method", *datasets]
        for block in nothing_run[name].blocks:
            assert [group[0][0] for group in block.groups] == methods


def test_cell_shows_ours_beside_the_paper(paper):
    found = texts(paper["table1"], ERROR)
    assert [found["cs-kd", line, "cifar100"] for line in LINES] == [
        *(compact(21.99, 0.13), compact(22.25, 0.25), compact(22.12, 0.25), "+0.26", f"{MINUS}10.1 %", "3")
    ]
    assert [found["cross-entropy", line, "cub200"] for line in LINES if line != "vs cross-entropy"] == [
        *(compact(46, 1.43), compact(46, 0.71), compact(45.88, 0.71), "+0.00", "2/3 seeds")
    ]
    states = [found[method, "our last epoch", "cub200"] for method in ("cs-kd", "adacos")]
    assert [*states, found["cs-kd", "our last epoch", "dogs"]] == ["failed", "not run", "interrupted"]
    assert {line for method, line, _ in found if method == "adacos"} == {"", "paper", "our last epoch"}


def test_frame_has_both_differences_and_both_relative_changes(paper, pool):
    frame = paper["table1"].frame.set_index(["architecture", "dataset", "method"])
    row = frame.loc["resnet18", "cifar100", "cs-kd"]
    runs = pool.runs_of("cifar100", "resnet18", "cs-kd")
    last, best = (np.mean(runs[name]) for name in ("test/top1_error", "best/top1_error"))
    assert (row.difference, row.best_difference) == pytest.approx((last - 21.99, best - 21.99))
    assert row.relative_change == pytest.approx((last - 24.75) / 24.75)
    assert row.paper_relative_change == pytest.approx((21.99 - 24.71) / 24.71)
    assert len(frame) == 60


def test_paper_number_is_shown_for_comparable_cells_and_cells_not_launched(paper):
    found = texts(paper["table1"], ERROR)
    assert found["cross-entropy", "paper", "mit67"] == "\N{EN DASH}"
    assert found["cross-entropy", "our last epoch", "mit67"] == "40.00"
    assert found["cross-entropy", "difference", "mit67"] == ""
    assert found["cs-kd", "paper", "mit67"] == compact(40.45, 0.45)
    assert "Not comparable with the paper: mit67 (the dataset is incomplete)." in paper["table1"].notes


def test_run_shared_by_two_grids_counts_once(paper):
    found = texts(paper["table6"], "Top-5 error (%), resnet18")
    assert found["cross-entropy", "n", "cifar100"] == "3"
    assert found["cs-kd-e", "vs cross-entropy", "cifar100"] == f"{MINUS}7.1 %"


def test_best_of_a_column_is_bold_with_ties(paper):
    table = paper["table1"]
    assert bold(table, ERROR, "our last epoch", "cifar100") == ["label-smoothing", "cs-kd"]
    assert bold(table, ERROR, "paper", "cifar100") == ["cs-kd"]
    assert "Bold, but from one seed (n = 1): cifar100/resnet18/label-smoothing." in table.notes
    assert bold(table, ERROR, "our last epoch", "cub200") == []  # only one number
    recall = paper["table6"]
    assert bold(recall, "R@1 (%), resnet18", "paper", "cifar100") == ["max-entropy"]
    assert bold(recall, "R@1 (%), resnet18", "our last epoch", "cifar100") == ["label-smoothing", "cs-kd"]
    assert "R@1 (%): higher is better." in recall.notes


def test_second_best_is_not_bold_if_the_papers_best_is_hidden(pool):
    is_best = pool.cells.cell == "cifar100/resnet18/cs-kd"
    cells = pool.cells.assign(comparable=~is_best & pool.cells.comparable, comparable_reason="other")
    table = paper_tables(dataclasses.replace(pool, cells=cells))["table1"]
    assert bold(table, ERROR, "paper", "cifar100") == []


def test_source_of_hyper_parameters_is_marked(paper):
    found = texts(paper["table1"], ERROR)
    assert (found["cs-kd", "", "cifar100"], found["cs-kd", "", "dogs"]) == ("", "\N{DAGGER}")
    assert any(note.startswith("\N{DAGGER} hyper-parameters ours") for note in paper["table1"].notes)


def test_missing_values_unfinished_runs_and_dirty_commits_are_noted(paper):
    found = texts(paper["table4"], "Top-1 error (%), resnet10")
    assert found["kd", "our last epoch", "cifar100"] == compact(25.5, 0.71)
    assert found["kd", "n", "cifar100"] == "2/3 seeds"
    assert found["kd+cs-kd", "our last epoch", "cifar100"] == "no value"
    name = "cifar100/resnet10/kd/seed2: test/top1_error is missing or NaN: left out of the mean."
    assert name in paper["table4"].notes
    notes = " ".join(paper["table1"].notes)
    assert "resnet10" not in notes
    assert "Commit: 1111111111aa (dirty)." in notes
    assert "cub200/resnet18/cross-entropy/seed2 running" in notes
    assert "cub200/resnet18/cs-kd/seed0 failed (the loss is NaN & 100% lost at epoch_3)" in notes
    assert "(dirty)" not in " ".join(paper["table4"].notes)


def test_figure4_has_accuracy_and_error_of_each_domain(paper):
    accuracy, error = (texts(paper["figure4"], block.heading) for block in paper["figure4"].blocks)
    assert [accuracy["cross-entropy", line, "dog (dogs)"] for line in LINES if line != "vs cross-entropy"] == [
        *("94.5", compact(97, 1, 1), compact(96.5, 1, 1), "+2.5", "3")
    ]
    assert [error["cs-kd", line, "indoor (mit67)"] for line in LINES] == [
        *("56.02", "54.00", "53.50", f"{MINUS}2.02", f"{MINUS}16.9 %", "1/3 seeds")
    ]


def test_tables_fit_a_terminal_of_80_columns(paper):
    for table in paper.values():
        text = terminal(table, 80)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        for block in table.blocks:
            for group in block.groups:
                for row in group:
                    assert re.search(r" +".join(re.escape(cell) for cell in row if cell), text), row
