"""The comparison of two methods on one dataset with one network."""

import math
from dataclasses import dataclass

import pandas as pd

from analysis.load.pools import Pool
from analysis.stats.intervals import Estimate, are_correlated, paired_effect, pooled_effect, with_test_images
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import STORED, all_metrics

PAIRED, POOLED, WELCH = "paired", "pooled", "welch"
DRAW = "params.subset.draw"  # "seed": the seed also draws the training images


@dataclass(frozen=True)
class Side:
    """The finished runs of a cell: values and run keys by seed, and a note for each run without a value.

    settings: those that the other side must have too; {} without a run.
    """

    runs: pd.DataFrame
    settings: dict[str, str]
    values: dict[int, float]
    run_keys: dict[int, str]
    left_out: tuple[str, ...]

    def replicates(self, metric: str, seeds: list[int], evaluations: Evaluations) -> list | None:
        """Return the replicates (R,) of each seed, or None if a run has none."""
        runs = [evaluations.get(self.run_keys[seed]) for seed in seeds]
        if all(run is not None and metric in run.replicates for run in runs):
            return [run.replicates[metric] for run in runs]
        return None


@dataclass(frozen=True)
class Comparison:
    """The difference of two methods, method - against, after the last epoch, in the metric's unit.

    kind: PAIRED, POOLED or WELCH. seeds: the compared seeds of each side. effect: the difference with its interval over
    seeds. with_images: the same with its interval over seeds and test images; None if a run has no replicates.
    """

    kind: str
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    effect: Estimate
    with_images: Estimate | None

    @property
    def widest(self) -> Estimate:
        """The effect with the widest interval that is known."""
        return self.with_images or self.effect


def side_of(pool: Pool, dataset: str, architecture: str, method: str, metric: str, evaluations: Evaluations) -> Side:
    """Return the finished runs of a cell with their values of a metric."""
    runs = pool.runs_of(dataset, architecture, method)
    values, run_keys, left_out = {}, {}, []
    is_stored = all_metrics()[metric].when == STORED
    tracked = runs[f"test/{metric}"] if f"test/{metric}" in runs else [math.nan] * len(runs)
    for name, seed, key, tracked_value in zip(runs.run, runs.seed, runs.run_key, tracked, strict=True):
        run_keys[seed] = key
        is_evaluated = is_stored and key in evaluations
        value = evaluations[key].values[metric] if is_evaluated else tracked_value
        if math.isfinite(value):
            values[seed] = value
        elif math.isnan(value) and is_stored and not is_evaluated:
            left_out.append(f"{name} has no {metric}, since its predictions are not evaluated: left out.")
        else:
            problem = "missing or NaN" if math.isnan(value) else "infinite"
            left_out.append(f"{name}: {metric} is {problem}: left out.")
    return Side(runs, pool.settings_of(dataset, architecture, method), values, run_keys, tuple(left_out))


def other_values(
    pool: Pool, dataset: str, architecture: str, methods: tuple[str, str], metric: str, evaluations: Evaluations
) -> list[list[float]]:
    """Return the values of each further method with the same settings, on the same dataset and network."""
    settings = pool.settings_of(dataset, architecture, methods[0])
    others = [
        side_of(pool, dataset, architecture, method, metric, evaluations)
        for method in pool.methods_on(dataset, architecture)
        if method not in methods
    ]
    return [list(other.values.values()) for other in others if other.values and other.settings == settings]


def compare(
    method: Side, against: Side, others: list[list[float]], metric: str, evaluations: Evaluations
) -> Comparison:
    """Return the comparison of two sides that have values and equal settings.

    Runs are paired by seed only if the seed also draws the training images and the pairs are correlated. Otherwise the
    means are compared, with a spread that is pooled over ``others`` too, or with Welch's interval if spreads differ.
    """
    sides = (method, against)
    seeds = [sorted(side.values) for side in sides]
    shared = sorted(set(seeds[0]) & set(seeds[1]))
    kind = _kind(method, against, shared)
    if kind == PAIRED:
        seeds = [shared, shared]
    values = [[side.values[seed] for seed in numbers] for side, numbers in zip(sides, seeds, strict=True)]
    effect = paired_effect(*values) if kind == PAIRED else pooled_effect(*values, others)
    replicates = [side.replicates(metric, numbers, evaluations) for side, numbers in zip(sides, seeds, strict=True)]
    complete = all(found is not None for found in replicates)
    with_images = with_test_images(effect, *replicates) if complete else None
    if kind != PAIRED and effect.pooled is None:
        kind = WELCH
    return Comparison(kind, (tuple(seeds[0]), tuple(seeds[1])), effect, with_images)


def _kind(method: Side, against: Side, shared: list[int]) -> str:
    draws_images = DRAW in method.runs and (method.runs[DRAW] == "seed").all()
    if not draws_images or len(shared) < min(len(method.values), len(against.values)):
        return POOLED
    pairs = [[side.values[seed] for seed in shared] for side in (method, against)]
    return PAIRED if are_correlated(*pairs) else POOLED
