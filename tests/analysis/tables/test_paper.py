"""The paper's tables and figure 4, from a pool of made-up runs of several grids."""

import csv
import dataclasses
import io
import math
import os
import re
from pathlib import Path

import pytest
from builders import Grid
from rich.console import Console

from analysis.load.pools import Pool, pools
from analysis.paper.published import PUBLISHED
from analysis.tables.format import show, to_csv, to_latex
from analysis.tables.model import Best, Table
from analysis.tables.paper import paper_tables
from cskd.evaluate.metrics import all_metrics
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
        golden = GOLDEN / f"table1.{ending}"
        if os.environ.get("UPDATE_GOLDEN"):
            golden.write_bytes(text.encode())
        assert text.encode() == golden.read_bytes(), f"differs from {golden}"


def test_layout_has_every_number_of_the_paper_if_nothing_was_run(nothing_run):
    assert list(nothing_run) == [*(f"table{number}" for number in range(1, 7)), "figure4"]
    with PUBLISHED.open() as file:
        numbers = [row for row in csv.DictReader(file) if row["table"] != "figure4"]
    for number in numbers:
        heading = f"{all_metrics()[number['metric']].label}, {number['architecture']}"
        found = texts(nothing_run[f"table{number['table']}"], heading)
        decimals = len(number["mean"].partition(".")[2])
        text = compact(float(number["mean"]), float(number["std"] or "nan"), decimals)
        assert found[number["method"], "paper", number["dataset"]] == text
        assert found[number["method"], "our last epoch", number["dataset"]] == "not run"
    shown = sum(len(table.frame) for name, table in nothing_run.items() if name != "figure4")
    assert shown == len(numbers) == 231


def test_run_shared_by_two_grids_counts_once(paper):
    found = texts(paper["table6"], "Top-5 error (%), resnet18")
    assert found["cross-entropy", "n", "cifar100"] == "3"
    assert found["cs-kd-e", "vs cross-entropy", "cifar100"] == f"{MINUS}7.1 %"


def test_best_of_a_column_is_bold_with_ties_and_unless_the_papers_best_is_hidden(paper, pool):
    recall = paper["table6"]
    assert bold(recall, "R@1 (%), resnet18", "paper", "cifar100") == ["max-entropy"]
    assert bold(recall, "R@1 (%), resnet18", "our last epoch", "cifar100") == ["label-smoothing", "cs-kd"]
    assert "R@1 (%): higher is better." in recall.notes
    assert bold(paper["table1"], ERROR, "our last epoch", "cub200") == []  # only one number
    is_best = pool.cells.cell == "cifar100/resnet18/cs-kd"
    cells = pool.cells.assign(comparable=~is_best & pool.cells.comparable, comparable_reason="other")
    table = paper_tables(dataclasses.replace(pool, cells=cells))["table1"]
    assert bold(table, ERROR, "paper", "cifar100") == []  # not the second best


def test_missing_values_are_noted_in_the_tables_of_their_runs(paper):
    found = texts(paper["table4"], "Top-1 error (%), resnet10")
    assert found["kd", "our last epoch", "cifar100"] == compact(25.5, 0.71)
    assert found["kd", "n", "cifar100"] == "2/3 seeds"
    assert found["kd+cs-kd", "our last epoch", "cifar100"] == "no value"
    name = "cifar100/resnet10/kd/seed2: test/top1_error is missing or NaN: left out of the mean."
    assert name in paper["table4"].notes
    assert "(dirty)" not in " ".join(paper["table4"].notes)
    assert "resnet10" not in " ".join(paper["table1"].notes)


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
