"""The README's tables, as Markdown: made of the files of results/measured/ and of the paper's numbers alone."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.claims.claims import decimals_of
from analysis.claims.verdicts import NOT_RUN, OUTCOMES, UNDECIDED
from analysis.commands.common import make_commands
from analysis.load.pools import PAPER
from analysis.measured.csv_files import (
    DATES,
    RUN_COLUMNS,
    RUN_NUMBERS,
    VERDICT_NUMBERS,
    existing,
    read_runs,
    read_verdicts,
    runs_path,
    typed,
    verdicts_path,
)
from analysis.paper.published import BASELINE, published, published_numbers
from analysis.stats.summary import finite, summary
from analysis.tables.format import markdown_link, markdown_rows, mean_std_text, to_markdown_text
from analysis.tables.metrics import PAPER_PROTOCOL, footnote_mark, footnotes
from analysis.tables.model import ABSENT, Block, Column
from analysis.tables.provenance import origin
from analysis.tables.verdicts import NOTES, effect_text, outcome_text, seeds_text

FOREMOST = (BASELINE, "cs-kd")
MAIN_CLAIM = "resnet18"  # of table 1, with both methods on each of its datasets: shown whether it was run or not
SHOWN = {  # column of the files: (header, decimals)
    "last_top1_error": ("error, last epoch (%)", 2),
    "best_top1_error": ("error, best test epoch (%)", 2),
    "last_ece": ("ECE (%)", 2),
    "last_nll": ("NLL (nats)", 3),
    "ece_cross_fitted": ("ECE, scaled (%)", 2),
    "last_recall_at_1": ("R@1 (%)", 2),
}
BESIDE_PAPER = {  # metric: its columns that stand beside the paper's number
    "top1_error": ("best_top1_error", "last_top1_error"),
    "ece": ("best_ece",),
}
MEANING = (
    "Mean ± std (ddof=1) over n seeds after the last epoch. Best test epoch: the one with the lowest test error, which "
    "the released code reports. ECE: 20 bins. Scaled: with a temperature, that of each half of the test images fitted "
    "to the other half."
)
FEWER = "(n=…): of fewer seeds than the row's; the others have no such value."
MAX_LISTED = 20  # verdicts that are shown at once; more are folded
WRITES = "make measured"  # a pool's files
VERDICT_HEADERS = tuple(
    map(Column, ("claim", "dataset", "network", "effect [95 %]", "n", "verdict", "what would decide"))
)


def results(pool: str, folder: Path, base: Path) -> str:
    """A pool's results: a table a dataset and network; of the paper's pool one a network, with the paper's numbers.

    folder: of the files. base: of the document, to which links are relative.
    Raises UserError where there is no file (but for the paper's pool: not run) or one that cannot be read.
    """
    path = runs_path(folder, pool)
    if pool == PAPER and not path.exists():
        runs, lacking = pd.DataFrame(columns=list(RUN_COLUMNS), dtype=str), ()
    else:
        runs, lacking = read_runs(existing(path, WRITES))
    runs, notes = _latest(typed(runs, path, ("seed", *RUN_NUMBERS), DATES))
    parts = _against_paper(runs) if pool == PAPER else _by_dataset(runs)
    notes = [*_setting(runs, pool), *_meaning(parts, pool), *notes, *_earlier(lacking)]
    if runs.empty:
        return "\n\n".join([*parts, _bullets(notes), "**Not run** yet: `make reproduce-table1` trains these."])
    source = to_markdown_text(f"{len(runs)} runs. {origin(runs)} Each with every metric:")
    commands = "\n".join(f"    {command}" for command in make_commands(runs, pool))
    return "\n\n".join([*parts, _bullets(notes), f"{source} {markdown_link(path, base)}.", commands]).rstrip()


def verdicts(pool: str, folder: Path, base: Path) -> str:
    """What the paper's claims come to on a pool: counted, and each that could be judged. See ``results``."""
    path = verdicts_path(folder, pool)
    if pool == PAPER and not path.exists():
        return "No run of the paper's recipe: none of its claims has been judged in its own setting."
    rows, lacking = read_verdicts(existing(path, WRITES))
    rows = typed(rows, path, VERDICT_NUMBERS)
    counts = Counter(rows.outcome)
    count = ", ".join(f"{outcome} {counts[outcome]}" for outcome in OUTCOMES)
    summed = to_markdown_text(f"The paper's claims, each on every dataset and network of {pool}: {count}.")
    source = f"Each with its reason: {markdown_link(path, base)}."
    judged = rows[rows.outcome != NOT_RUN]
    if judged.empty:
        return f"{summed}\n\n{source}"
    groups = []
    for _, own in judged.groupby("id", sort=False):
        texts = [_verdict_texts(row, pool) for row in own.itertuples()]
        # a claim is told once, before its cells
        groups.append(tuple((text if not index else ("", *text[1:])) for index, text in enumerate(texts)))
    table = markdown_rows(VERDICT_HEADERS, Block("", tuple(groups)))
    if len(judged) > MAX_LISTED:
        table = f"<details><summary>The {len(judged)} that could be judged</summary>\n\n{table}\n\n</details>"
    return "\n\n".join([summed, table, _bullets([*NOTES, *_earlier(lacking)]), source])


def _verdict_texts(row, pool: str) -> tuple[str, ...]:
    over_images = not pd.isna(row.seeds_and_images_low)
    interval = (row.seeds_and_images_low, row.seeds_and_images_high) if over_images else (row.seeds_low, row.seeds_high)
    effect = ABSENT if pd.isna(row.effect) else effect_text(row.effect, interval, decimals_of(row.metric), over_images)
    seeds = seeds_text(int(row.n_method), int(row.n_against), row.how)
    open_question = row.reason.rstrip(".") if row.outcome == UNDECIDED else ""
    return (row.claim, row.dataset, row.architecture, effect, seeds, outcome_text(row.outcome, pool), open_question)


def _bullets(notes: list[str]) -> str:
    return "\n".join(f"- {to_markdown_text(note)}" for note in notes)


def _earlier(lacking: tuple[str, ...]) -> list[str]:
    return [f"The file is of an earlier version, without {', '.join(lacking)}."] if lacking else []


def _latest(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Of runs of one cell and other settings those that were started last; and a note on what is left out.

    Files keep runs from before a recipe was changed. Such runs are of one name and several cell keys.
    """
    started = runs.groupby(["dataset", "architecture", "method", "cell_key"]).started.max()
    keys = {name[:3]: name[3] for name in started.sort_values(kind="stable").index}
    names = list(zip(runs.dataset, runs.architecture, runs.method, strict=True))
    latest = pd.Series([key == keys[name] for name, key in zip(names, runs.cell_key, strict=True)], runs.index, bool)
    earlier = Counter(name for name, keep in zip(names, latest, strict=True) if not keep)
    return runs[latest], [
        f"{'/'.join(name)}: {count} runs with other settings than the latest: left out."
        for name, count in earlier.items()
    ]


def in_order(names: Iterable[str], kind: str) -> list[str]:
    """Datasets, architectures or methods, each once: as in the paper's tables (but CS-KD second), then by name."""
    order = list(published_numbers()[kind].unique())
    order = [*FOREMOST, *(name for name in order if name not in FOREMOST)] if kind == "method" else order
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def _by_dataset(runs: pd.DataFrame) -> list[str]:
    columns = (Column("method"), *(Column(title, number=True) for title, _ in SHOWN.values()), Column("n"))
    parts = []
    for dataset in in_order(runs.dataset, "dataset"):
        of_dataset = runs[runs.dataset == dataset]
        for network in in_order(of_dataset.architecture, "architecture"):
            own = of_dataset[of_dataset.architecture == network]
            rows = []
            for method in in_order(own.method, "method"):
                of_method = own[own.method == method]
                means = [_mean(of_method, name, decimals) for name, (_, decimals) in SHOWN.items()]
                rows.append((_marked(of_method), *means, str(len(of_method))))
            parts += [
                f"**{to_markdown_text(f'{dataset}, {network}')}**",
                markdown_rows(columns, Block("", (tuple(rows),))),
            ]
    return parts


def _against_paper(runs: pd.DataFrame) -> list[str]:
    columns = [Column("dataset"), Column("method"), Column("error (%): paper", number=True)]
    columns += [Column(f"error: ours, {epoch}", number=True) for epoch in ("best test epoch", "last epoch")]
    columns += [Column(name, number=True) for name in ("ECE (%): paper", "ECE: ours, best test epoch")] + [Column("n")]
    main = published_numbers().query(f"table == '1' and architecture == '{MAIN_CLAIM}'")
    cells = {(row.architecture, row.dataset, row.method) for row in main.itertuples() if row.method in FOREMOST}
    cells |= set(zip(runs.architecture, runs.dataset, runs.method, strict=True))
    parts = []
    for network in in_order((cell[0] for cell in cells), "architecture"):
        groups = []
        for dataset in in_order((cell[1] for cell in cells if cell[0] == network), "dataset"):
            methods = in_order((cell[2] for cell in cells if cell[:2] == (network, dataset)), "method")
            texts = [_beside_paper(runs, network, dataset, method) for method in methods]
            groups.append(tuple((dataset if not index else "", *text) for index, text in enumerate(texts)))
        parts += [f"**{to_markdown_text(network)}**", markdown_rows(tuple(columns), Block("", tuple(groups)))]
    return parts


def _beside_paper(runs: pd.DataFrame, network: str, dataset: str, method: str) -> tuple[str, ...]:
    own = runs[(runs.architecture == network) & (runs.dataset == dataset) & (runs.method == method)]
    texts = [method if own.empty else _marked(own)]
    for metric, columns in BESIDE_PAPER.items():
        number = published(network, dataset, method, metric)
        comparable = (own.comparable == "true").all()
        texts.append(mean_std_text(*number, 2) if number and comparable else ABSENT)
        texts += [NOT_RUN if own.empty else _mean(own, column, 2) for column in columns]
    return (*texts, str(len(own)))


def _marked(runs: pd.DataFrame) -> str:
    """The method of some runs, marked where it or its hyper-parameters are not the paper's."""
    last = next(runs.tail(1).itertuples())
    return f"{last.method} {footnote_mark(last)}".rstrip()


def _mean(runs: pd.DataFrame, column: str, decimals: int) -> str:
    values = summary(finite(runs[column]))
    if not values.n:
        return ABSENT
    fewer = f" (n={values.n})" if values.n < len(runs) else ""
    return mean_std_text(values.mean, values.std, decimals) + fewer


def _setting(runs: pd.DataFrame, pool: str) -> list[str]:
    """That the runs are not comparable with the paper, and why; what they were trained on; and what was changed."""
    notes = []
    reasons = dict.fromkeys(text for text in runs.comparable_reason if text)
    if pool != PAPER and reasons:
        notes.append(f"Not comparable with the paper: {'; '.join(reasons)}.")
    elif reasons:
        against = runs[runs.comparable != "true"]
        for text, own in against.groupby("comparable_reason", sort=False):
            datasets = ", ".join(in_order(own.dataset, "dataset"))
            notes.append(f"Not comparable with the paper: {datasets} ({text}).")
    trained = {text: in_order(own.dataset, "dataset") for text, own in runs.groupby("trained", sort=False) if text}
    if trained:
        parts = (f"{', '.join(datasets)}: {text}" for text, datasets in trained.items())
        notes.append(f"Trained: {'; '.join(parts)}.")
    notes += [f"Settings changed from the recipe: {text}." for text in dict.fromkeys(runs.overrides) if text]
    return notes


def _meaning(parts: list[str], pool: str) -> list[str]:
    told_of = [MEANING] if pool != PAPER else [PAPER_PROTOCOL]
    told_of += footnotes("".join(parts))
    return told_of + ([FEWER] if any("(n=" in part for part in parts) else [])
