"""Markdown tables of results and verdicts, from the measured CSV files and the paper's numbers alone."""

import itertools
from collections import Counter
from pathlib import Path

import pandas as pd

from analysis.claims.claims import load_claims
from analysis.claims.columns import VERDICT_NUMBERS
from analysis.claims.verdicts import NO_VALUE, NOT_RUN, OUTCOMES, UNDECIDED
from analysis.load.frames import NAME
from analysis.load.pools import PAPER, pool_name
from analysis.measured.csv_files import (
    VERDICTS,
    read_rows,
    runs_path,
    to_numbers,
    verdicts_path,
)
from analysis.measured.runs import (
    COMMAND,
    MAIN_METHODS,
    cell_text,
    column_of,
    load_runs,
    paper_order,
    provenance,
    setting,
)
from analysis.paper.published import published, published_numbers
from analysis.stats.summary import summary
from analysis.tables.format import markdown_link, markdown_list, markdown_rows, to_markdown, to_markdown_text
from analysis.tables.metrics import PAPER_PROTOCOL, footnote_mark, footnotes
from analysis.tables.model import Block, Column, Row, Table, name_once
from analysis.tables.verdicts import NOTES, verdict_texts
from cskd.evaluate.metrics import all_metrics
from cskd.utils.numbers import ABSENT, MEAN_STD, mean_std_text

MAIN_NETWORK = "resnet18"  # table 1 has both main methods on every dataset with it: shown even if not run
SHOWN = {  # column of the file: (metric, header)
    "last_top1_error": ("top1_error", "error, last epoch (%)"),
    "best_top1_error": ("top1_error", "error, best test epoch (%)"),
    "last_ece": ("ece", "ECE (%)"),
    "last_nll": ("nll", "NLL (nats)"),
    "ece_cross_fitted": ("ece", "ECE, scaled (%)"),
    "last_recall_at_1": ("recall_at_1", "R@1 (%)"),
}
BESIDE_PAPER = {"top1_error": ("best_top1_error", "last_top1_error"), "ece": ("best_ece",)}  # by metric
PAPER_HEADERS = (
    *("error (%): paper", "error: ours, best test epoch", "error: ours, last epoch"),
    *("ECE (%): paper", "ECE: ours, best test epoch"),
)
MEANING = (
    f"{MEAN_STD.capitalize()} over n seeds after the last epoch. Best test epoch: the epoch with the lowest test "
    "error, which the released code reports. ECE: 20 bins. Scaled: with a temperature; each half of the test images "
    "is scaled by the temperature fitted to the other half."
)
FEWER = "(n=…): over fewer seeds than the row; the other seeds have no such value."
VERDICT_HEADERS = ("claim", "dataset", "network", "effect [95 %]", "n", "verdict", "what would decide")
MAX_LISTED = 20  # a longer list of verdicts is folded
ONE_DRAW = "subset.draw=fixed"  # all seeds have the same training images
LONG_SCHEDULE = ("schedule.epochs=200", "schedule.milestones=[100,150]")
ANSWER_POOLS = (  # pool, what it is, and the datasets to show
    (pool_name("mini", tuned=True), "mini, both tuned", ("cifar100",)),
    (pool_name("mini", overrides=(ONE_DRAW,)), "mini (one draw)", ("cifar100", "tinyimagenet", "cub200", "dogs")),
    (pool_name("mini", overrides=(*LONG_SCHEDULE, ONE_DRAW)), "mini (one draw)", ("tinyimagenet", "cub200")),
)
ANSWER_CLAIMS = ("error-cross-entropy", "ece-cross-entropy")
DECIDING, DECIDING_DATASET = "small", "cifar100"  # profile and dataset of the deciding experiment
DECIDING_HEADERS = ("small, cifar100", "cross-entropy", "CS-KD", "difference [95 %]", "n", "verdict")


def results(pool: str, folder: Path, base: Path) -> str:
    """Return a pool's results as Markdown: one table per dataset and network. The paper's recipe: beside its numbers.

    Args:
        folder: contains the CSV files.
        base: the folder of the document, to which links are relative.

    Raises UserError if the file cannot be read, or is absent. Only the file of the paper's recipe may be absent.
    """
    path = runs_path(folder, pool)
    is_paper = pool == PAPER
    runs, notes = load_runs(path, may_be_absent=is_paper)
    columns, blocks = _beside_paper(runs) if is_paper else _by_dataset(runs)
    shown = itertools.chain(*BESIDE_PAPER.values()) if is_paper else SHOWN
    cells = [cell for _, cell in runs.groupby(NAME, sort=False)]
    has_fewer = any(0 < summary(cell[column]).n < len(cell) for column in shown for cell in cells)
    notes = [
        *(*setting(runs, is_paper), PAPER_PROTOCOL if is_paper else MEANING),
        *(*footnotes(map(_mark, cells)), *notes, *([FEWER] if has_fewer else [])),
    ]
    text = to_markdown(Table("", columns, blocks, runs, notes=tuple(notes)))
    if runs.empty:
        return f"{text}\n**Not run** yet: `make reproduce-table1` trains these."
    return f"{text}\n{provenance(runs, path, base)}"


def verdicts(pool: str, folder: Path, base: Path) -> str:
    """Return the verdicts on a pool: the number by outcome, and each verdict that was judged. See ``results``."""
    path = verdicts_path(folder, pool)
    if pool == PAPER and not path.exists():
        return "No run of the paper's recipe: none of its claims has been judged in its own setting."
    rows = _load_verdicts(path)
    counts = Counter(rows.outcome)
    count = ", ".join(f"{outcome} {counts[outcome]}" for outcome in OUTCOMES)
    lead = to_markdown_text(f"The claims, each on every dataset and network of {pool}: {count}.")
    source = f"Each verdict with its reason: {markdown_link(path, base)}."
    judged = rows[rows.outcome != NOT_RUN]
    if judged.empty:
        return f"{lead}\n\n{source}"
    groups = tuple(name_once(map(_verdict_texts, claim.itertuples())) for _, claim in judged.groupby("id", sort=False))
    table = markdown_rows(tuple(map(Column, VERDICT_HEADERS)), Block("", groups))
    if len(judged) > MAX_LISTED:
        table = f"<details><summary>The {len(judged)} verdicts that were judged</summary>\n\n{table}\n\n</details>"
    return "\n\n".join([lead, table, markdown_list(NOTES), source])


def answer(folder: Path) -> str:
    """Return the README's tables: the deciding experiment's primary outcomes, and the mini runs."""
    return f"{_deciding_table(folder)}\n\n{_mini_table(folder)}"


def _deciding_table(folder: Path) -> str:
    """Return the primary outcomes of the deciding experiment in their order."""
    runs, _ = load_runs(runs_path(folder, DECIDING))
    judged = _load_verdicts(verdicts_path(folder, DECIDING))
    cells = [runs[(runs.dataset == DECIDING_DATASET) & (runs.method == method)] for method in MAIN_METHODS]
    rows = []
    for claim in sorted((claim for claim in load_claims() if claim.primary), key=lambda claim: claim.primary):
        metric = all_metrics()[claim.metric]
        means = [cell_text(cell, column_of(metric.name), metric.name) for cell in cells]
        for row in judged[(judged.id == claim.id) & (judged.dataset == DECIDING_DATASET)].itertuples():
            rows.append((f"H{claim.primary}: {metric.label}", *means, *verdict_texts(row)[2:4], row.outcome))
    return markdown_rows(tuple(map(Column, DECIDING_HEADERS)), Block("", (tuple(rows),)))


def _mini_table(folder: Path) -> str:
    """Return cross-entropy and CS-KD on each dataset of the mini runs, with the verdicts."""
    headers = [f"{metric}, {method} (%)" for metric in ("error", "ECE") for method in ("cross-entropy", "CS-KD")]
    columns = (Column("dataset"), *(Column(header, number=True) for header in headers), Column("verdict (error; ECE)"))
    rows = []
    for pool, what, datasets in ANSWER_POOLS:
        runs, _ = load_runs(runs_path(folder, pool))
        judged = _load_verdicts(verdicts_path(folder, pool)).set_index(["dataset", "id"]).outcome
        for dataset in datasets:
            cells = [runs[(runs.dataset == dataset) & (runs.method == method)] for method in MAIN_METHODS]
            epochs = ", ".join(dict.fromkeys(cells[0]["schedule.epochs"]))
            means = [_mean(cell, column) for column in ("last_top1_error", "last_ece") for cell in cells]
            outcomes = "; ".join(judged.get((dataset, claim), NOT_RUN) for claim in ANSWER_CLAIMS)
            rows.append((f"{dataset}, {what}, {epochs} epochs", *means, outcomes))
    return markdown_rows(columns, Block("", (tuple(rows),)))


def _load_verdicts(path: Path) -> pd.DataFrame:
    numbers = (*VERDICT_NUMBERS, "n_method", "n_against", "seeds_for_power")
    return to_numbers(read_rows(path, VERDICTS, COMMAND), path, numbers)


def _verdict_texts(row) -> Row:
    *texts, reason = verdict_texts(row)
    return row.claim, *texts, reason.rstrip(".") if row.outcome in (UNDECIDED, NO_VALUE) else ""


def _by_dataset(runs: pd.DataFrame) -> tuple[tuple[Column, ...], tuple[Block, ...]]:
    columns = (Column("method"), *(Column(header, number=True) for _, header in SHOWN.values()), Column("n"))
    blocks = []
    for dataset in paper_order(runs.dataset, "dataset"):
        of_dataset = runs[runs.dataset == dataset]
        for network in paper_order(of_dataset.architecture, "architecture"):
            of_network = of_dataset[of_dataset.architecture == network]
            rows = []
            for method in paper_order(of_network.method, "method"):
                cell = of_network[of_network.method == method]
                rows.append((_marked(cell), *(_mean(cell, column) for column in SHOWN), str(len(cell))))
            blocks.append(Block(f"{dataset}, {network}", (tuple(rows),)))
    return columns, tuple(blocks)


def _beside_paper(runs: pd.DataFrame) -> tuple[tuple[Column, ...], tuple[Block, ...]]:
    columns = (Column("dataset"), Column("method"), *(Column(name, number=True) for name in PAPER_HEADERS), Column("n"))
    table1 = published_numbers().query(f"table == '1' and architecture == '{MAIN_NETWORK}'")
    cells = {(row.architecture, row.dataset, row.method) for row in table1.itertuples() if row.method in MAIN_METHODS}
    cells |= set(zip(runs.architecture, runs.dataset, runs.method, strict=True))
    blocks = []
    for network in paper_order((cell[0] for cell in cells), "architecture"):
        groups = []
        for dataset in paper_order((cell[1] for cell in cells if cell[0] == network), "dataset"):
            methods = paper_order((cell[2] for cell in cells if cell[:2] == (network, dataset)), "method")
            groups.append(name_once((dataset, *_paper_texts(runs, network, dataset, method)) for method in methods))
        blocks.append(Block(network, tuple(groups)))
    return columns, tuple(blocks)


def _paper_texts(runs: pd.DataFrame, network: str, dataset: str, method: str) -> Row:
    cell = runs[(runs.architecture == network) & (runs.dataset == dataset) & (runs.method == method)]
    texts = [method if cell.empty else _marked(cell)]
    for metric, columns in BESIDE_PAPER.items():
        number = published(network, dataset, method, metric) if cell.comparable.all() else None
        texts.append(mean_std_text(*number, all_metrics()[metric].decimals) if number else ABSENT)
        texts += [NOT_RUN if cell.empty else _mean(cell, column) for column in columns]
    return (*texts, str(len(cell)))


def _mark(cell: pd.DataFrame) -> str:
    """Return the footnote mark of a cell's method."""
    return footnote_mark(next(cell.tail(1).itertuples()))


def _marked(cell: pd.DataFrame) -> str:
    """Return the method with its footnote mark."""
    return f"{cell.method.iloc[0]} {_mark(cell)}".rstrip()


def _mean(cell: pd.DataFrame, column: str) -> str:
    return cell_text(cell, column, SHOWN[column][0] if column in SHOWN else column.removeprefix("best_"))
