"""Collect the drawings of a pool, with a note for each figure that cannot be drawn."""

from pathlib import Path

from analysis.figures import (
    calibration,
    curves,
    embedding,
    log_probability,
    overfitting,
    reliability_pairs,
    softmax_bars,
)
from analysis.figures.sources import Group, NotDrawn, groups
from analysis.load.pools import Pool
from analysis.load.store import Store, UnusableRun
from analysis.tables.files import Drawing
from cskd.evaluate.evaluation import Evaluations

DRAWINGS = {
    "figure 1b": softmax_bars.draw,
    "figure 2": log_probability.draw,
    "figure 3": embedding.draw,
    "figure 5": reliability_pairs.draw,
    "curves": curves.draw,
    "overfitting": overfitting.draw,
    "calibration": calibration.draw,
}
OF_EXAMPLES = ("figure 1b", "figure 3")  # show single images, of one dataset for each architecture
EXAMPLE_DATASET = "cifar100"  # the dataset of these figures in the paper


def pool_figures(
    pool: Pool, store: Store, evaluations: Evaluations, cache: Path, data_dir: Path
) -> tuple[dict[str, Drawing], list[str]]:
    """Return ``{name: drawing}``, and a note for each figure that is not drawn or is incomplete.

    evaluations: by run key. cache: the folder for predictions and histories. data_dir: the folder of the prepared
    datasets, for the images of the softmax bars.
    """
    drawings: dict[str, Drawing] = {}
    notes: list[str] = []
    all_groups = list(groups(pool, store, evaluations, cache, data_dir))
    examples = _example_groups(all_groups)
    for group in all_groups:
        for kind, draw in DRAWINGS.items():
            if kind in OF_EXAMPLES and group not in examples:
                continue
            problems: list[str] = []
            try:
                drawings[f"{kind.replace(' ', '')}-{group.file}"] = draw(group, problems.append)
            except (NotDrawn, UnusableRun) as error:
                problems.append(f"not drawn, {error}")
            notes += [f"{kind}, {group.dataset}, {group.architecture}: {problem}." for problem in problems]
    return drawings, notes


def _example_groups(all_groups: list[Group]) -> list[Group]:
    """Return one group with finished runs per architecture, on EXAMPLE_DATASET if there is one."""
    by_architecture: dict[str, Group] = {}
    for group in all_groups:
        if group.methods() and (group.architecture not in by_architecture or group.dataset == EXAMPLE_DATASET):
            by_architecture[group.architecture] = group
    return list(by_architecture.values())
