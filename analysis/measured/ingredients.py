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
LONGER = f"{BASELINE}, longer"  # runs of a pool of its own: as many forward passes as CS-KD has
LONGER_SETTINGS = ("schedule.epochs=80", "schedule.milestones=[40,60]")
FURTHER_ARMS = (*CONTROLS, LONGER, "any-partner", "both-gradients")
PUBLISHED_SEEDS = (4, 16)  # seeds 0 to 3; then 0 to 15, once every method has them
DESCRIPTION = (
    "Unused: the training images of these classes that the run did not train on, other images for each seed. NLL and "
    "ECE without temperature scaling. These numbers describe; only the test images are used for intervals.",
)


def ingredients(pool: str, folder: Path, base: Path) -> str:
    """Return the tables of the study as Markdown, with its figure; arguments and errors as in ``results``."""
    return _text(pool, folder, base, ARMS, figure_path(pool))


def further_ingredients(pool: str, folder: Path, base: Path) -> str:
    """Return the same for the variants that were added after the first ones."""
    return _text(pool, folder, base, FURTHER_ARMS, further_path(pool))


def figure_path(pool: str) -> str:
    """Return the path of the figure, relative to the document."""
    return f"images/ingredients-{pool}.png"


def further_path(pool: str) -> str:
    return f"images/further-ingredients-{pool}.png"


def ingredients_figure(pool: str, folder: Path) -> Figure:
    """Return the figure of the largest published number of seeds."""
    return _figure(pool, folder, ARMS)


def further_figure(pool: str, folder: Path) -> Figure:
    return _figure(pool, folder, FURTHER_ARMS)


def _text(pool: str, folder: Path, base: Path, arms: Sequence[str], figure: str) -> str:
    files = _load(pool, folder, arms)
    runs, notes = _joined(files), [note for *_, notes in files for note in notes]
    published = _published(runs, arms)
    parts = [figure_link(figure)]
    finished = _finished(runs, arms, published[0])
    if unfinished := [f"{method} {n}" for method, n in finished.items() if n < published[0]]:
        parts.insert(
            0, f"**Not finished**: of {published[0]} seeds, {', '.join(unfinished)}. Nothing is concluded yet."
        )
    parts += [to_markdown(differences_table(runs[runs.seed < count], arms)).rstrip() for count in published]
    parts.append(to_markdown(_description_table(runs[runs.seed < published[-1]], arms, notes)).rstrip())
    parts += [provenance(of_file, path, base) for path, of_file, _ in files if len(of_file)]
    return "\n\n".join(parts)


def _figure(pool: str, folder: Path, arms: Sequence[str]) -> Figure:
    runs = _joined(_load(pool, folder, arms))
    return differences_figure(runs[runs.seed < _published(runs, arms)[-1]], arms)


def _load(pool: str, folder: Path, arms: Sequence[str]) -> list[tuple[Path, pd.DataFrame, list[str]]]:
    """Return each file of the study with its runs of these arms, and notes. Only that of LONGER may be absent."""
    files = {runs_path(folder, pool): arms}
    if LONGER in arms:
        files[runs_path(folder, pool_name(pool, overrides=LONGER_SETTINGS))] = (BASELINE,)
    loaded = []
    for path, methods in files.items():
        runs, notes = load_runs(path, may_be_absent=bool(loaded))
        is_of_study = (runs.dataset == DATASET) & (runs.architecture == NETWORK) & runs.method.isin(methods)
        loaded.append((path, runs[is_of_study], notes))
    return loaded


def _joined(files: list[tuple[Path, pd.DataFrame, list[str]]]) -> pd.DataFrame:
    """Return the runs of all files, in which the method of the second file is LONGER."""
    (_, runs, _), *others = files
    return pd.concat([runs, *(longer.assign(method=LONGER) for _, longer, _ in others)], ignore_index=True)


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
    return Table("", tuple(columns), (block,), runs, notes=(*DESCRIPTION, *setting(runs), *notes))
