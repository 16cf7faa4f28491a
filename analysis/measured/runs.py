"""The rows of a file of runs, and their text in the documents: mean and std of a cell, settings, commits, commands."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.load.frames import NAME
from analysis.measured.csv_files import DATES, RUN_COLUMNS, RUN_NUMBERS, RUNS, read_rows, to_numbers
from analysis.measured.make_commands import make_commands
from analysis.paper.published import BASELINE, CS_KD, published_numbers
from analysis.stats.summary import summary
from analysis.tables.format import markdown_link, to_markdown_text
from analysis.tables.metrics import incomparable_notes
from analysis.tables.provenance import SETTINGS, origin, trained
from cskd.evaluate.metrics import STORED, all_metrics
from cskd.utils.numbers import mean_std_text

COMMAND = "make measured"  # writes the files of a pool
MAIN_METHODS = (BASELINE, CS_KD)


def load_runs(path: Path, may_be_absent: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs with the latest settings of each cell, and a note for each cell with other runs."""
    if may_be_absent and not path.exists():
        rows = pd.DataFrame(columns=list(RUN_COLUMNS), dtype=str)
    else:
        rows = read_rows(path, RUNS, COMMAND)
    runs = to_numbers(rows, path, ("seed", *RUN_NUMBERS), DATES)
    runs["comparable"] = runs.comparable == "true"
    started = runs.groupby([*NAME, "cell_key"]).started.max().sort_values(kind="stable")
    latest = {cell[:3]: cell[3] for cell in started.index}
    is_latest = [latest[cell[:3]] == cell[3] for cell in runs[[*NAME, "cell_key"]].itertuples(index=False, name=None)]
    current = runs[pd.Series(is_latest, runs.index, bool)]
    earlier = runs.drop(current.index).groupby(NAME, sort=False).size()
    notes = [
        f"{'/'.join(cell)}: {count} runs with other settings than the latest: left out."
        for cell, count in earlier.items()
    ]
    return current, notes


def column_of(metric: str) -> str:
    """Return the column of a metric's value after the last epoch."""
    return metric if all_metrics()[metric].when == STORED else f"last_{metric}"


def cell_text(cell: pd.DataFrame, column: str, metric: str) -> str:
    """Return mean and std of a metric's column as text, and the number of seeds if some have no value."""
    values = summary(cell[column])
    fewer = values.n if values.n < len(cell) else 0
    return mean_std_text(values.mean, values.std, all_metrics()[metric].decimals, n=fewer)


def setting(runs: pd.DataFrame, is_paper: bool = False) -> list[str]:
    """Return why the runs are not comparable with the paper, their training settings, and the changed settings."""
    reasons = list(dict.fromkeys(runs.comparable_reason[~runs.comparable]))
    notes = incomparable_notes(runs)
    if not is_paper:
        notes = [f"Not comparable with the paper: {'; '.join(reasons)}."] if reasons else []
    names = {f"params.{name}": runs[name] for name in SETTINGS}
    records = runs[["dataset", "architecture"]].assign(**names).to_dict("records")
    notes += trained(records, lambda datasets: paper_order(datasets, "dataset"))
    changed = [", ".join(json.loads(overrides)) for overrides in dict.fromkeys(runs.overrides)]
    return notes + [f"Settings changed from the recipe: {settings}." for settings in changed if settings]


def provenance(runs: pd.DataFrame, path: Path, base: Path) -> str:
    """Return as Markdown where the runs of a file come from, and the commands that train them."""
    source = to_markdown_text(f"{len(runs)} runs. {origin(runs)} All metrics of each run:")
    text = f"{source} {markdown_link(path, base)}."
    commands = make_commands(runs)
    return "\n".join([f"{text}\n", "```sh", *commands, "```"]) if commands else text


def paper_order(names: Iterable[str], kind: str) -> list[str]:
    """Return datasets, architectures or methods, each once: in the paper's order (CS-KD second), then by name."""
    order = list(published_numbers()[kind].unique())
    order = [*MAIN_METHODS, *(name for name in order if name not in MAIN_METHODS)] if kind == "method" else order
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))
