"""Verdicts: what the tracked runs of a pool say about each claim, by the rules of docs/judgement.md."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from analysis.claims.claims import DOMAIN_METRICS, OURS, Claim
from analysis.claims.columns import CLAIM_COLUMNS, VERDICT_COLUMNS, VERDICT_NUMBERS
from analysis.claims.comparison import Comparison, Side, compare, other_values, side_of
from analysis.load.pools import PAPER, Pool
from analysis.paper.published import BASELINE
from analysis.stats.intervals import Estimate
from analysis.stats.multiplicity import holm
from cskd.evaluate.evaluation import Evaluations

LEVEL = 0.05
HOLDS, CONTRADICTED, EQUIVALENT = "holds", "contradicted", "equivalent"
UNDECIDED, NO_VALUE, NOT_RUN = "undecided", "no value", "not run"
OUTCOMES = (HOLDS, CONTRADICTED, EQUIVALENT, UNDECIDED, NO_VALUE, NOT_RUN)
# Reasons of an outcome; NO_VALUE is its own reason
EXCLUDES_ZERO = "interval excludes zero"
WITHIN_MARGIN = "within the margin"
NO_RUN = "no finished run"
SETTINGS_DIFFER = "settings differ"
ONE_SEED = "one seed"
NO_SPREAD = "no spread between seeds"
EARLIER_CLAIM = "an earlier primary claim does not hold"
CORRECTION = "excludes zero only before the correction"
SMALL_TEST_SET = "test set too small"
TOO_MANY_SEEDS = "too many seeds needed"
MORE_SEEDS = "more seeds needed"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim for one dataset and network, after the last epoch of the finished runs.

    pool: the pool's name.
    seeds: the number of runs with a value, of claim.method and of claim.against.
    comparison: None if there is nothing to compare.
    corrected_p: the p-value corrected for the number of judged claims of the pool; NaN without a comparison.
    outcome: one of OUTCOMES. reason: one of the reasons above, detailed by ``missing`` (NO_RUN, NO_VALUE: "method",
        "against" or "both"), ``settings`` (SETTINGS_DIFFER: their names) and ``seeds_for_power`` (MORE_SEEDS: the seeds
        that find a difference as large as the metric's margin in 80 % of the cases; None without a margin).
    left_out: one note for each run without a value.
    """

    claim: Claim
    pool: str
    dataset: str
    architecture: str
    outcome: str = UNDECIDED
    reason: str = MORE_SEEDS
    seeds: tuple[int, int] = (0, 0)
    comparison: Comparison | None = None
    corrected_p: float = math.nan
    missing: str = ""
    settings: tuple[str, ...] = ()
    seeds_for_power: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def p_value(self) -> float:
        """The p-value of this claim alone; NaN without an interval."""
        return self.comparison.widest.p_value if self.comparison else math.nan

    @property
    def is_borne_out(self) -> bool:
        return self.claim.is_borne_out(self.comparison.effect.value)


def judge(pool: Pool, claims: tuple[Claim, ...], evaluations: Evaluations) -> list[Verdict]:
    """Return the verdict on each claim, dataset and network, in the order of the claims.

    The p-values of all claims of the pool are corrected by Holm's method. The primary claims on a dataset and network
    are in addition tested in their order without a correction: each holds if it is borne out and those before it hold.

    Args:
        evaluations: by run key. If a run has none, the comparison is over seeds only.
    """
    verdicts = [_compared(pool, *cell, evaluations) for cell in _cells(pool, claims)]
    tested = [number for number, verdict in enumerate(verdicts) if math.isfinite(verdict.p_value)]
    for number, corrected in zip(tested, holm([verdicts[number].p_value for number in tested]), strict=True):
        verdicts[number] = replace(verdicts[number], corrected_p=corrected)
    in_sequence = _held_in_sequence(verdicts)
    return [
        _decided(verdict, number in in_sequence) if verdict.comparison else verdict
        for number, verdict in enumerate(verdicts)
    ]


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


def _compared(pool: Pool, claim: Claim, dataset: str, architecture: str, evaluations: Evaluations) -> Verdict:
    """Return the comparison that a claim needs, not yet decided, or the reason why there is none."""
    methods, metric = (claim.method, claim.against), claim.metric
    sides = tuple(side_of(pool, dataset, architecture, method, metric, evaluations) for method in methods)
    facts = _obstacle(sides)
    if facts is None:
        others = other_values(pool, dataset, architecture, methods, metric, evaluations)
        facts = {"comparison": compare(*sides, others, metric, evaluations)}
    return Verdict(
        claim,
        pool.name,
        dataset,
        architecture,
        seeds=(len(sides[0].values), len(sides[1].values)),
        left_out=sides[0].left_out + sides[1].left_out,
        **facts,
    )


def _obstacle(sides: tuple[Side, Side]) -> dict | None:
    """Return outcome and reason if the sides cannot be compared, else None."""
    if missing := _missing(*(side.runs.empty for side in sides)):
        return {"outcome": NOT_RUN, "reason": NO_RUN, "missing": missing}
    if missing := _missing(*(not side.values for side in sides)):
        return {"outcome": NO_VALUE, "reason": NO_VALUE, "missing": missing}
    first, second = (side.settings for side in sides)
    if first == second:
        return None
    names = sorted(name for name in first | second if first.get(name) != second.get(name))
    settings = tuple(name.removeprefix("params.") for name in names)
    return {"outcome": UNDECIDED, "reason": SETTINGS_DIFFER, "settings": settings}


def _missing(method: bool, against: bool) -> str:
    if method and against:
        return "both"
    return "method" if method else "against" if against else ""


def _held_in_sequence(verdicts: list[Verdict]) -> set[int]:
    """Return the positions of the primary claims that hold, each tested only if those before it hold."""
    sequences: dict[tuple[str, str], list[int]] = {}
    for number, verdict in enumerate(verdicts):
        if verdict.claim.primary:
            sequences.setdefault((verdict.dataset, verdict.architecture), []).append(number)
    held = set()
    for numbers in sequences.values():
        for number in sorted(numbers, key=lambda number: verdicts[number].claim.primary):
            if not (verdicts[number].p_value <= LEVEL and verdicts[number].is_borne_out):
                break
            held.add(number)
    return held


def _decided(verdict: Verdict, holds_in_sequence: bool) -> Verdict:
    """Return a compared verdict with outcome and reason."""
    is_significant = verdict.corrected_p <= LEVEL
    if holds_in_sequence or (is_significant and verdict.is_borne_out and not verdict.claim.primary):
        return replace(verdict, outcome=HOLDS, reason=EXCLUDES_ZERO)
    if is_significant and not verdict.is_borne_out:
        return replace(verdict, outcome=CONTRADICTED, reason=EXCLUDES_ZERO)
    margin, effect = verdict.claim.equivalence_margin, verdict.comparison.widest
    if margin is not None and effect.equivalence_p(margin) <= LEVEL:
        return replace(verdict, outcome=EQUIVALENT, reason=WITHIN_MARGIN)
    reason, seeds = _open_reason(verdict, effect, margin)
    return replace(verdict, reason=reason, seeds_for_power=seeds)


def _open_reason(verdict: Verdict, effect: Estimate, margin: float | None) -> tuple[str, int | None]:
    """Return why a compared verdict is undecided, and the seeds for power, if they are the reason and known."""
    if min(effect.seeds) == 1:
        return ONE_SEED, None
    if math.isnan(verdict.p_value):
        return NO_SPREAD, None
    if verdict.p_value <= LEVEL:
        return (EARLIER_CLAIM if verdict.claim.primary and verdict.is_borne_out else CORRECTION), None
    if margin is None:
        return MORE_SEEDS, None
    if not effect.images_suffice(margin):
        return SMALL_TEST_SET, None
    seeds = effect.seeds_for_power(margin)
    return (MORE_SEEDS, seeds) if seeds else (TOO_MANY_SEEDS, None)


def verdict_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """Return one row per verdict with the columns VERDICT_COLUMNS."""
    records = []
    for verdict in verdicts:
        record, comparison = {name: getattr(verdict.claim, name) for name in CLAIM_COLUMNS}, verdict.comparison
        record |= {"dataset": verdict.dataset, "architecture": verdict.architecture}
        if comparison:
            record |= {"effect": comparison.effect.value, "comparison": comparison.kind}
            record["seeds_low"], record["seeds_high"] = comparison.effect.interval
            record["seeds_method"], record["seeds_against"] = (" ".join(map(str, side)) for side in comparison.seeds)
        if comparison and comparison.with_images:
            record["seeds_and_images_low"], record["seeds_and_images_high"] = comparison.with_images.interval
        record |= {"p_value": verdict.p_value, "corrected_p": verdict.corrected_p}
        record |= {"n_method": verdict.seeds[0], "n_against": verdict.seeds[1]}
        record |= {"outcome": verdict.outcome, "reason": verdict.reason, "missing": verdict.missing}
        record |= {"settings": " ".join(verdict.settings), "seeds_for_power": verdict.seeds_for_power}
        record |= {"left_out": " ".join(verdict.left_out), "pool": verdict.pool}
        records.append(record)
    frame = pd.DataFrame(records, columns=list(VERDICT_COLUMNS))
    numbers = dict.fromkeys(VERDICT_NUMBERS, float) | {"seeds_for_power": "Int64"}
    texts = dict.fromkeys(("comparison", "seeds_method", "seeds_against"), "")
    return frame.astype(numbers | dict.fromkeys(texts, object)).fillna(texts)
