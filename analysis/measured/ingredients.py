"""The ingredient study, from its measured runs: each variant of CS-KD beside cross-entropy and beside CS-KD.

docs/judgement.md fixes the metrics, the intervals (Dunnett's, no other test) and the published numbers of seeds.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.measured.csv_files import UNUSED_METRICS, runs_path
from analysis.measured.differences import differences_figure, differences_table, figure_link
from analysis.measured.runs import cell_text, load_runs, provenance, setting
from analysis.tables.format import to_markdown
from analysis.tables.methods import CONTROLS
from analysis.tables.model import Block, Column, Table
from cskd.evaluate.metrics import all_metrics

DATASET, NETWORK = "cifar100", "resnet10"
ARMS = (*CONTROLS, "same-image", "permuted-partner", "class-mean", "pair-halves", "partner-pass")
PUBLISHED_SEEDS = (4, 16)  # seeds 0 to 3; then 0 to 15, once every method has them
DESCRIPTION = (
    "Unused: the training images of these classes that the run did not train on, other images for each seed. NLL and "
    "ECE without temperature scaling. These numbers describe; only the test images are used for intervals.",
)


def ingredients(pool: str, folder: Path, base: Path) -> str:
    """Return the tables of the study as Markdown, with its figure; arguments and errors as in ``results``."""
    path = runs_path(folder, pool)
    runs, notes = _load(path)
    published = _published(runs)
    parts = [figure_link(figure_path(pool))]
    finished = _finished(runs, published[0])
    if unfinished := [f"{method} {n}" for method, n in finished.items() if n < published[0]]:
        parts.insert(
            0, f"**Not finished**: of {published[0]} seeds, {', '.join(unfinished)}. Nothing is concluded yet."
        )
    parts += [to_markdown(differences_table(runs[runs.seed < count], ARMS)).rstrip() for count in published]
    parts.append(to_markdown(_description_table(runs[runs.seed < published[-1]], notes)).rstrip())
    parts.append(provenance(runs, path, base))
    return "\n\n".join(parts)


def figure_path(pool: str) -> str:
    """Return the path of the figure, relative to the document."""
    return f"images/ingredients-{pool}.png"


def ingredients_figure(pool: str, folder: Path) -> Figure:
    """Return the figure of the largest published number of seeds."""
    runs, _ = _load(runs_path(folder, pool))
    return differences_figure(runs[runs.seed < _published(runs)[-1]], ARMS)


def _load(path: Path) -> tuple[pd.DataFrame, list[str]]:
    runs, notes = load_runs(path)
    return runs[(runs.dataset == DATASET) & (runs.architecture == NETWORK) & runs.method.isin(ARMS)], notes


def _published(runs: pd.DataFrame) -> list[int]:
    """Return the numbers of seeds to show: the first, and each further one that every method has reached."""
    first, *later = PUBLISHED_SEEDS
    return [first, *(count for count in later if min(_finished(runs, count).values()) == count)]


def _finished(runs: pd.DataFrame, count: int) -> dict[str, int]:
    """Return by method the number of finished seeds below ``count``."""
    return {method: int(((runs.method == method) & (runs.seed < count)).sum()) for method in ARMS}


def _description_table(runs: pd.DataFrame, notes: list[str]) -> Table:
    columns, rows = [Column("method"), Column("n")], []
    for name in UNUSED_METRICS:
        columns += [Column(f"{all_metrics()[name].label}: {images}", number=True) for images in ("test", "unused")]
    for method in ARMS:
        cell = runs[runs.method == method]
        texts = [cell_text(cell, f"{prefix}_{name}", name) for name in UNUSED_METRICS for prefix in ("last", "unused")]
        rows.append((method, str(len(cell)), *texts))
    block = Block("Test images and unused training images", (tuple(rows),))
    return Table("", tuple(columns), (block,), runs, notes=(*DESCRIPTION, *setting(runs), *notes))
