"""The ingredient study, from its measured runs: each variant of CS-KD beside cross-entropy and beside CS-KD.

docs/judgement.md fixes the metrics, the intervals (Dunnett's, no other test) and the published numbers of seeds.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.load.pools import pool_name
from analysis.measured.csv_files import UNUSED_METRICS, runs_path
from analysis.measured.differences import differences_figure, differences_table, figure_link
from analysis.measured.runs import cell_text, load_runs, provenance, setting
from analysis.paper.published import BASELINE
from analysis.tables.format import to_markdown
from analysis.tables.methods import CONTROLS
from analysis.tables.model import Block, Column, Table
from cskd.evaluate.metrics import all_metrics

DATASET, NETWORK = "cifar100", "resnet10"
ARMS = (*CONTROLS, "same-image", "permuted-partner", "class-mean", "pair-halves", "partner-pass")
LONGER = f"{BASELINE}, longer"  # as much computing as CS-KD, if a backward pass costs as much as two forward passes
LONGER_SETTINGS = ("schedule.epochs=80", "schedule.milestones=[40,60]")  # so its runs are a pool of their own
FURTHER_ARMS = (*CONTROLS, LONGER, "any-partner", "both-gradients")
PUBLISHED_SEEDS = (4, 16)  # seeds 0 to 3; then 0 to 15, once every method has them
DESCRIPTION = (
    "Unused: the training images of these classes that the run did not train on, other images for each seed. NLL and "
    "ECE without temperature scaling. These numbers describe; only the test images are used for intervals.",
)


def ingredients(pool: str, folder: Path, base: Path) -> str:
    """Return the tables of the study as Markdown, with its figure; arguments and errors as in ``results``."""
    path = runs_path(folder, pool)
    runs, notes = _load(path, ARMS)
    return "\n\n".join([*_parts(runs, ARMS, figure_path(pool), setting(runs) + notes), provenance(runs, path, base)])


def further_ingredients(pool: str, folder: Path, base: Path) -> str:
    """Return the tables of the further variants, with their figure; as ``ingredients``."""
    path, longer_path = runs_path(folder, pool), _longer_path(pool, folder)
    runs, notes = _load(path, FURTHER_ARMS)
    longer, longer_notes = _load(longer_path, (BASELINE,), may_be_absent=True)
    notes = [*setting(runs), f"{LONGER}: {', '.join(LONGER_SETTINGS)}.", *notes, *longer_notes]
    sources = [provenance(runs, path, base), *([provenance(longer, longer_path, base)] if len(longer) else [])]
    return "\n\n".join([*_parts(_further_runs(pool, folder), FURTHER_ARMS, further_path(pool), notes), *sources])


def figure_path(pool: str) -> str:
    """Return the path of the figure, relative to the document."""
    return f"images/ingredients-{pool}.png"


def further_path(pool: str) -> str:
    """Return the path of the figure of the further variants."""
    return f"images/further-ingredients-{pool}.png"


def ingredients_figure(pool: str, folder: Path) -> Figure:
    """Return the figure of the largest published number of seeds."""
    return _figure(_load(runs_path(folder, pool), ARMS)[0], ARMS)


def further_figure(pool: str, folder: Path) -> Figure:
    """Return the figure of the further variants, at their largest published number of seeds."""
    return _figure(_further_runs(pool, folder), FURTHER_ARMS)


def _load(path: Path, arms: Sequence[str], may_be_absent: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs of these arms in a file, and notes."""
    runs, notes = load_runs(path, may_be_absent)
    return runs[(runs.dataset == DATASET) & (runs.architecture == NETWORK) & runs.method.isin(arms)], notes


def _longer_path(pool: str, folder: Path) -> Path:
    return runs_path(folder, pool_name(pool, overrides=LONGER_SETTINGS))


def _further_runs(pool: str, folder: Path) -> pd.DataFrame:
    """Return the runs of FURTHER_ARMS; those of the pool with longer training have LONGER as method."""
    runs, _ = _load(runs_path(folder, pool), FURTHER_ARMS)
    longer, _ = _load(_longer_path(pool, folder), (BASELINE,), may_be_absent=True)
    return pd.concat([runs, longer.assign(method=LONGER)], ignore_index=True)


def _parts(runs: pd.DataFrame, arms: Sequence[str], figure: str, notes: list[str]) -> list[str]:
    """Return the figure's link, the tables with intervals and the description, each as Markdown."""
    published = _published(runs, arms)
    parts = [figure_link(figure)]
    finished = _finished(runs, arms, published[0])
    if unfinished := [f"{method} {n}" for method, n in finished.items() if n < published[0]]:
        parts.insert(
            0, f"**Not finished**: of {published[0]} seeds, {', '.join(unfinished)}. Nothing is concluded yet."
        )
    parts += [to_markdown(differences_table(runs[runs.seed < count], arms)).rstrip() for count in published]
    parts.append(to_markdown(_description_table(runs[runs.seed < published[-1]], arms, notes)).rstrip())
    return parts


def _figure(runs: pd.DataFrame, arms: Sequence[str]) -> Figure:
    return differences_figure(runs[runs.seed < _published(runs, arms)[-1]], arms)


def _published(runs: pd.DataFrame, arms: Sequence[str]) -> list[int]:
    """Return the numbers of seeds to show: the first, and each further one that every method has reached."""
    first, *later = PUBLISHED_SEEDS
    return [first, *(count for count in later if min(_finished(runs, arms, count).values()) == count)]


def _finished(runs: pd.DataFrame, arms: Sequence[str], count: int) -> dict[str, int]:
    """Return by method the number of finished seeds below ``count``."""
    return {method: int(((runs.method == method) & (runs.seed < count)).sum()) for method in arms}


def _description_table(runs: pd.DataFrame, arms: Sequence[str], notes: list[str]) -> Table:
    columns, rows = [Column("method"), Column("n")], []
    for name in UNUSED_METRICS:
        columns += [Column(f"{all_metrics()[name].label}: {images}", number=True) for images in ("test", "unused")]
    for method in arms:
        cell = runs[runs.method == method]
        texts = [cell_text(cell, f"{prefix}_{name}", name) for name in UNUSED_METRICS for prefix in ("last", "unused")]
        rows.append((method, str(len(cell)), *texts))
    block = Block("Test images and unused training images", (tuple(rows),))
    return Table("", tuple(columns), (block,), runs, notes=(*DESCRIPTION, *notes))
