"""Draw all figures of a pool, with a note for each figure that cannot be drawn."""

from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures import (
    calibration,
    curves,
    embedding,
    log_probability,
    overfitting,
    reliability_pairs,
    softmax_bars,
)
from analysis.figures.sources import Group, NotDrawn, Note, groups
from analysis.load.pools import Pool
from analysis.load.store import Store, UnusableRun
from analysis.stats.evaluation import Evaluation

EXAMPLE_DATASET = "cifar100"  # the dataset of the paper's figures 1 (b) and 3


def pool_figures(
    pool: Pool, store: Store, evaluations: dict[str, Evaluation], cache: Path, data_dir: Path
) -> tuple[dict[str, Figure], list[str]]:
    """Return ``{name: figure}``, and a note for each figure that is not drawn or is incomplete.

    evaluations: by run key. cache: the folder for predictions and histories. data_dir: the folder of the prepared
    datasets, for the images of the softmax bars.
    """
    figures: dict[str, Figure] = {}
    notes: list[str] = []
    all_groups = list(groups(pool, store, evaluations, cache, data_dir))
    examples = _example_groups(all_groups)
    for group in all_groups:
        for kind, draw in _drawings(group in examples):
            problems: list[str] = []
            try:
                figures[f"{kind.replace(' ', '')}-{group.file}"] = draw(group, problems.append)
            except (NotDrawn, UnusableRun) as error:
                problems.append(f"not drawn, {error}")
            notes += [f"{kind}, {group.dataset}, {group.architecture}: {problem}." for problem in problems]
    return figures, notes


def _example_groups(all_groups: list[Group]) -> list[Group]:
    """Return one group per architecture, for the figures that show single images."""
    by_architecture: dict[str, Group] = {}
    for group in all_groups:
        if group.methods() and (group.architecture not in by_architecture or group.dataset == EXAMPLE_DATASET):
            by_architecture[group.architecture] = group
    return list(by_architecture.values())


def _drawings(is_example: bool) -> Iterator[tuple[str, Callable[[Group, Note], Figure]]]:
    if is_example:
        yield "figure 1b", softmax_bars.draw
    yield "figure 2", log_probability.draw
    if is_example:
        yield "figure 3", embedding.draw
    yield "figure 5", reliability_pairs.draw
    yield "curves", curves.draw
    yield "overfitting", overfitting.draw
    yield "calibration", calibration.draw
