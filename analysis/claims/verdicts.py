"""Verdicts: what the tracked runs of a pool say about each claim."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.claims.claims import DOMAIN_METRICS, OURS, Claim
from analysis.load.pools import PAPER, Pool
from analysis.paper.published import BASELINE
from analysis.stats.comparability import settings_of
from analysis.stats.evaluation import Evaluation
from analysis.stats.intervals import Estimate, paired_effect, seeds_needed, welch_effect, with_test_images
from cskd.evaluate.metrics import STORED, all_metrics

HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "undecided", "not run"
OUTCOMES = (HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN)
# Reasons of an outcome
EXCLUDES_ZERO = "interval excludes zero"
NO_RUN = "no finished run"
NO_VALUE = "no value"
SETTINGS_DIFFER = "settings differ"
ONE_SEED = "one seed"
NO_SPREAD = "no spread between seeds"
SMALL_TEST_SET = "test set too small"
TOO_MANY_SEEDS = "too many seeds needed"
MORE_SEEDS = "more seeds needed"
# How two sides are compared
PAIRED, WELCH = "paired", "welch"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim for one dataset and network, after the last epoch of the finished runs.

    pool: the pool's name.
    seeds: the number of runs with a value, of claim.method and of claim.against.
    comparison: PAIRED, WELCH, or "" if there is nothing to compare.
    compared: the seeds that were compared, of both sides.
    effect: method - against in the metric's unit, with its interval over seeds; None if there is no comparison.
    with_images: the same with its interval over seeds and test images; None if a run has no evaluation or the metric
        has no replicates.
    outcome: one of OUTCOMES. reason: one of the reasons above, detailed by ``missing`` (NO_RUN, NO_VALUE: "method",
        "against" or "both"), ``settings`` (SETTINGS_DIFFER: their names) and ``seeds_needed`` (MORE_SEEDS).
    left_out: one note for each run without a value.
    """

    claim: Claim
    pool: str
    dataset: str
    architecture: str
    outcome: str
    reason: str
    seeds: tuple[int, int] = (0, 0)
    comparison: str = ""
    compared: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    effect: Estimate | None = None
    with_images: Estimate | None = None
    missing: str = ""
    settings: tuple[str, ...] = ()
    seeds_needed: int | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Side:
    """The finished runs of a cell: values and run keys by seed, and a note for each run without a value."""

    runs: pd.DataFrame
    values: dict[int, float]
    keys: dict[int, str]
    left_out: tuple[str, ...]


def judge(pool: Pool, claims: tuple[Claim, ...], evaluations: dict[str, Evaluation]) -> list[Verdict]:
    """Return the verdict on each claim, dataset and network, in the order of the claims.

    A claim holds if the 95 % interval over seeds lies on the claimed side of 0, and is contradicted if it lies on the
    other side. The interval over seeds and test images, if there is one, must lie on the same side.
    Runs with the same seed are compared in pairs if one side has all seeds of the other. Otherwise the means are
    compared with Welch's interval.

    Args:
        evaluations: by run key. If a run has none, the comparison is over seeds only.
    """
    return [_verdict(pool, *cell, evaluations) for cell in _cells(pool, claims)]


def _cells(pool: Pool, claims: tuple[Claim, ...]) -> Iterator[tuple[Claim, str, str]]:
    """Yield (claim, dataset, architecture). For the paper's profile: every combination that is claimed.

    For another profile: every network that trained a method of the claim or cross-entropy, on the claim's datasets and
    on datasets that are not in the paper. Two claims may then need the same comparison (tables 1 and 4 differ in the
    network only): only the first claim is judged.
    """
    if pool.profile == PAPER:
        yield from (
            (claim, dataset, net) for claim in claims for dataset in claim.datasets for net in claim.architectures
        )
        return
    published = {dataset for claim in claims if claim.where != OURS for dataset in claim.datasets}
    compared = set()
    for claim in claims:
        launched = pool.cells[pool.cells.method.isin([claim.method, claim.against, BASELINE])]
        for dataset, architecture in dict.fromkeys(zip(launched.dataset, launched.architecture, strict=True)):
            is_extra = dataset not in published and claim.metric not in DOMAIN_METRICS
            comparison = (claim.metric, claim.method, claim.against, dataset, architecture)
            if (dataset in claim.datasets or is_extra) and comparison not in compared:
                compared.add(comparison)
                yield claim, dataset, architecture


def _verdict(pool: Pool, claim: Claim, dataset: str, architecture: str, evaluations: dict[str, Evaluation]) -> Verdict:
    sides = [
        _side(pool.runs_of(dataset, architecture, method), claim.metric, evaluations)
        for method in (claim.method, claim.against)
    ]
    facts = _obstacle(sides)
    if facts is None:
        comparison = _compare(sides, claim.metric, evaluations)
        facts = comparison | _decide(claim, comparison["effect"], comparison["with_images"])
    return Verdict(
        claim,
        pool.name,
        dataset,
        architecture,
        seeds=(len(sides[0].values), len(sides[1].values)),
        left_out=sides[0].left_out + sides[1].left_out,
        **facts,
    )


def _side(runs: pd.DataFrame, metric: str, evaluations: dict[str, Evaluation]) -> _Side:
    values, keys, left_out = {}, {}, []
    is_stored = all_metrics()[metric].when == STORED
    tracked = runs[f"test/{metric}"] if f"test/{metric}" in runs else [math.nan] * len(runs)
    for name, seed, key, tracked_value in zip(runs.run, runs.seed, runs.run_key, tracked, strict=True):
        keys[seed] = key
        if is_stored and key not in evaluations:
            left_out.append(f"{name}: its predictions are not evaluated: no {metric}, left out.")
            continue
        value = evaluations[key].values[metric] if is_stored else tracked_value
        if math.isfinite(value):
            values[seed] = value
        else:
            problem = "missing or NaN" if math.isnan(value) else "infinite"
            left_out.append(f"{name}: {metric} is {problem}: left out.")
    return _Side(runs, values, keys, tuple(left_out))


def _obstacle(sides: list[_Side]) -> dict | None:
    """Return outcome and reason if the sides cannot be compared, else None."""
    if missing := _missing(*(side.runs.empty for side in sides)):
        return {"outcome": NOT_RUN, "reason": NO_RUN, "missing": missing}
    if missing := _missing(*(not side.values for side in sides)):
        return {"outcome": UNDECIDED, "reason": NO_VALUE, "missing": missing}
    first, second = (settings_of(side.runs) for side in sides)
    if first == second:
        return None
    names = sorted(name for name in first | second if first.get(name) != second.get(name))
    settings = tuple(name.removeprefix("params.") for name in names)
    return {"outcome": UNDECIDED, "reason": SETTINGS_DIFFER, "settings": settings}


def _missing(method: bool, against: bool) -> str:
    if method and against:
        return "both"
    return "method" if method else "against" if against else ""


def _compare(sides: list[_Side], metric: str, evaluations: dict[str, Evaluation]) -> dict:
    """Return comparison, compared, effect and with_images of a Verdict."""
    seeds = [sorted(side.values) for side in sides]
    shared = sorted(set(seeds[0]) & set(seeds[1]))
    paired = len(shared) == min(map(len, seeds))
    if paired:
        seeds = [shared, shared]
    values = [[side.values[seed] for seed in numbers] for side, numbers in zip(sides, seeds, strict=True)]
    effect = paired_effect(*values) if paired else welch_effect(*values)
    evaluated = [
        [evaluations.get(side.keys[seed]) for seed in numbers] for side, numbers in zip(sides, seeds, strict=True)
    ]
    with_images = None
    if all(run is not None and metric in run.replicates for side in evaluated for run in side):
        with_images = with_test_images(effect, *([run.replicates[metric] for run in side] for side in evaluated))
    return {
        "comparison": PAIRED if paired else WELCH,
        "compared": (tuple(seeds[0]), tuple(seeds[1])),
        "effect": effect,
        "with_images": with_images,
    }


def _decide(claim: Claim, effect: Estimate, with_images: Estimate | None) -> dict:
    """Return outcome and reason from the intervals."""
    widest = with_images or effect
    if effect.excludes_zero and widest.excludes_zero:
        outcome = HOLDS if claim.is_borne_out(effect.value) else CONTRADICTED
        return {"outcome": outcome, "reason": EXCLUDES_ZERO}
    needed = None
    if min(effect.seeds) == 1:
        reason = ONE_SEED
    elif any(map(math.isnan, effect.spreads)):
        reason = NO_SPREAD
    elif not widest.images_suffice:
        reason = SMALL_TEST_SET
    else:
        needed = seeds_needed(widest)
        reason = TOO_MANY_SEEDS if needed is None else MORE_SEEDS
    return {"outcome": UNDECIDED, "reason": reason, "seeds_needed": needed}
