"""What tracked runs say of each claim of the paper: it holds, is contradicted, is undecided, or was not run."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.claims.claims import DOMAIN_METRICS, FEATURE_SPREAD, Claim
from analysis.load.frames import named_seeds
from analysis.load.pools import PAPER, Pool
from analysis.stats.evaluation import Evaluation
from analysis.stats.intervals import MAX_SEEDS, Estimate, paired_effect, seeds_needed, welch_effect, with_test_images
from analysis.tables.metrics import BASELINE
from analysis.tables.provenance import settings_of

HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "undecided", "not run"
PAIRED = "paired on"  # how a Verdict's runs were compared: this and the seeds, or by Welch
OUTCOMES = (HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN)


@dataclass(frozen=True)
class Verdict:
    """One claim, judged on one dataset with one network, from the last epoch of the finished runs.

    pool: the name of theirs. seeds: how many runs of claim.method and of claim.against have a value. how: which of them
    were compared and how, "" where none could be. effect: method - against in the metric's unit, with its interval
    over seeds; None where there is nothing to compare. with_images: the same with the interval over seeds and test
    images; None where not all runs compared were evaluated, or the metric has no replicates. outcome: one of
    ``OUTCOMES``. left_out: runs that have no value, each named in a sentence.
    """

    claim: Claim
    pool: str
    dataset: str
    architecture: str
    seeds: tuple[int, int]
    how: str
    effect: Estimate | None
    with_images: Estimate | None
    outcome: str
    reason: str
    left_out: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The outcome, with the pool's name where its runs are not in the paper's setting."""
        return message(self.outcome, self.pool)


def message(outcome: str, pool: str) -> str:
    """The outcome, with the name of a pool that is not in the paper's setting."""
    return outcome if pool == PAPER else f"{outcome} ({pool})"


@dataclass(frozen=True)
class _Side:
    """The finished runs of a cell: values and run keys by seed, and a sentence for each run without a value."""

    runs: pd.DataFrame
    values: dict[int, float]
    keys: dict[int, str]
    left_out: tuple[str, ...]


def judge(pool: Pool, claims: tuple[Claim, ...], evaluations: dict[str, Evaluation]) -> list[Verdict]:
    """The verdict on each claim, dataset and network, in the order of the claims.

    Of the paper's profile all that the paper claims; of another what the pool has: see ``_cells``.
    evaluations: by run key; a run that has none is judged over seeds alone.

    A claim holds (is contradicted) where the 95 % interval over seeds lies on its side (the other side) of 0, and so
    does the one over seeds and test images where there is one. Runs of the same seeds are compared pair by pair, where
    one side's seeds are all among the other's; else the means are, by Welch's interval.
    """
    return [_verdict(pool, *cell, evaluations) for cell in _cells(pool, claims)]


def _cells(pool: Pool, claims: tuple[Claim, ...]) -> Iterator[tuple[Claim, str, str]]:
    """(claim, dataset, architecture): in a pool of the paper's profile the claims' own.

    In another one, the claim's datasets that the pool has, and those that the paper knows nothing of, with every
    network on which a method of the claim or cross-entropy was launched. There, two claims may come to the same
    comparison (of tables 1 and 4, which differ in the network): the first of them has it.
    """
    if pool.profile == PAPER:
        yield from (
            (claim, dataset, net) for claim in claims for dataset in claim.datasets for net in claim.architectures
        )
        return
    papers = {dataset for claim in claims for dataset in claim.datasets}
    made = set()
    for claim in claims:
        launched = pool.cells[pool.cells.method.isin([claim.method, claim.against, BASELINE])]
        for dataset, architecture in dict.fromkeys(zip(launched.dataset, launched.architecture, strict=True)):
            stands_in = dataset not in papers and claim.metric not in DOMAIN_METRICS
            comparison = (claim.metric, claim.method, claim.against, dataset, architecture)
            if (dataset in claim.datasets or stands_in) and comparison not in made:
                made.add(comparison)
                yield claim, dataset, architecture


def _verdict(pool: Pool, claim: Claim, dataset: str, architecture: str, evaluations: dict[str, Evaluation]) -> Verdict:
    sides = [
        _side(pool.runs_of(dataset, architecture, name), claim.metric, evaluations)
        for name in (claim.method, claim.against)
    ]
    how, effect, with_images = "", None, None
    if obstacle := _obstacle(sides):
        outcome, reason = obstacle
    else:
        how, effect, with_images = _compared(sides, claim.metric, evaluations)
        outcome, reason = _judged(claim, effect, with_images)
    return Verdict(
        claim=claim,
        pool=pool.name,
        dataset=dataset,
        architecture=architecture,
        seeds=(len(sides[0].values), len(sides[1].values)),
        how=how,
        effect=effect,
        with_images=with_images,
        outcome=outcome,
        reason=reason,
        left_out=sides[0].left_out + sides[1].left_out,
    )


def _side(runs: pd.DataFrame, metric: str, evaluations: dict[str, Evaluation]) -> _Side:
    values, left_out = {}, []
    for run in runs.to_dict("records"):
        evaluated = metric == FEATURE_SPREAD
        if evaluated and run["run_key"] not in evaluations:
            left_out.append(f"{run['run']}: its predictions are not evaluated: no {metric}, left out.")
            continue
        value = evaluations[run["run_key"]].separation[metric] if evaluated else run.get(f"test/{metric}", math.nan)
        if math.isfinite(value):
            values[run["seed"]] = value
        else:
            left_out.append(
                f"{run['run']}: {metric} is {'missing or NaN' if math.isnan(value) else 'infinite'}: left out."
            )
    keys = dict(zip(runs.seed, runs.run_key, strict=True))
    return _Side(runs, values, keys, tuple(left_out))


def _obstacle(sides: list[_Side]) -> tuple[str, str] | None:
    """(outcome, reason) where there is nothing that may be compared."""
    if any(side.runs.empty for side in sides):
        return NOT_RUN, f"No finished run of {_hyperparameter_source(side.runs.empty for side in sides)}."
    if not all(side.values for side in sides):
        return UNDECIDED, f"No value of {_hyperparameter_source(not side.values for side in sides)}."
    settings = [settings_of(side.runs) for side in sides]
    if settings[0] != settings[1]:
        names = sorted(
            name for name in {**settings[0], **settings[1]} if settings[0].get(name) != settings[1].get(name)
        )
        return UNDECIDED, f"Settings differ: {', '.join(name.removeprefix('params.') for name in names)}."
    return None


def _hyperparameter_source(lacking: Iterable[bool]) -> str:
    """Which side lacks something: by its place in the claim, as columns of numbers have it."""
    names = [name for name, lacks in zip(("the method", "the other"), lacking, strict=True) if lacks]
    return names[0] if len(names) == 1 else "either"


def _compared(
    sides: list[_Side], metric: str, evaluations: dict[str, Evaluation]
) -> tuple[str, Estimate, Estimate | None]:
    """(how, effect over seeds, effect over seeds and images)."""
    seeds = [sorted(side.values) for side in sides]
    shared = sorted(set(seeds[0]) & set(seeds[1]))
    paired = len(shared) == min(map(len, seeds))
    if paired:
        seeds = [shared, shared]
    first, second = map(named_seeds, seeds)
    how = f"{PAIRED} {first}" if paired else f"Welch, {first} against {second}"
    values = [[side.values[seed] for seed in own] for side, own in zip(sides, seeds, strict=True)]
    effect = paired_effect(*values) if paired else welch_effect(*values)
    found = [[evaluations.get(side.keys[seed]) for seed in own] for side, own in zip(sides, seeds, strict=True)]
    if any(each is None or metric not in each.replicates for side in found for each in side):
        return how, effect, None
    return how, effect, with_test_images(effect, *([each.replicates[metric] for each in side] for side in found))


def _judged(claim: Claim, effect: Estimate, with_images: Estimate | None) -> tuple[str, str]:
    widest = with_images or effect
    if effect.excludes_zero and widest.excludes_zero:
        over = "seeds and test images" if with_images else "seeds"
        return (HOLDS if claim.is_borne_out(effect.value) else CONTRADICTED), f"Excludes 0 over {over}."
    if min(effect.seeds) == 1:
        return UNDECIDED, "One seed decides nothing."
    if any(map(math.isnan, effect.spreads)):
        return UNDECIDED, "No spread between seeds: equal values prove nothing."
    if not widest.images_suffice:
        return UNDECIDED, "More seeds would not decide: the test set is too small."
    needed = seeds_needed(widest)
    if needed is None:
        return UNDECIDED, f"More than {MAX_SEEDS:,} seeds would be needed."
    return UNDECIDED, f"{needed} seeds of each would decide."
