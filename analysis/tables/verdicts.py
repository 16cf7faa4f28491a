"""The verdicts on the claims as tables: one row per comparison, or one row per claim."""

import math
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from analysis.claims.claims import Claim
from analysis.claims.comparison import PAIRED
from analysis.claims.verdicts import (
    CORRECTION,
    EARLIER_CLAIM,
    EXCLUDES_ZERO,
    HOLDS,
    LEVEL,
    MORE_SEEDS,
    NO_RUN,
    NO_SPREAD,
    NO_VALUE,
    NOT_RUN,
    ONE_SEED,
    OUTCOMES,
    SETTINGS_DIFFER,
    SMALL_TEST_SET,
    TOO_MANY_SEEDS,
    WITHIN_MARGIN,
    Verdict,
)
from analysis.load.pools import PAPER, Pool
from analysis.stats.intervals import MAX_SEEDS
from analysis.tables.format import interval_text
from analysis.tables.model import Block, Column, Outcome, Row, Table, name_once
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.metrics import PERCENT, all_metrics
from cskd.utils.numbers import ABSENT, number_text

SEEDS_ALONE = "*"  # marks intervals over seeds only
COLUMNS = (
    Column("claim", sentences=True),
    Column("dataset"),
    Column("network"),
    Column("effect [95 %]"),
    Column("n"),
    Column("verdict"),
    Column("reason", sentences=True),
)
SUMMARY_COLUMNS = (Column("claim", sentences=True), *(Column(outcome, number=True) for outcome in OUTCOMES))
SUMMARY_NOTE = "The number of datasets and networks on which each claim holds; the verdicts say which and why."
NOTES = (
    "Effect: the method minus the other after the last epoch, in the metric's unit (percentage points; a ratio for "
    "features). n: finished seeds of the method/of the other; in brackets the number of pairs, if the runs are paired.",
    f"95 %: the interval of this claim alone, over seeds and test images. {SEEDS_ALONE} marks an interval over seeds "
    "only, which is valid for these test images.",
    f"Verdict: holds and contradicted need a p-value of at most {LEVEL}, corrected by Holm's method for the number of "
    "claims that are judged here. The primary claims (error, then NLL after temperature scaling, then debiased ECE of "
    "cs-kd against cross-entropy) are tested in this order instead. Equivalent: the 90 % interval lies within the "
    "margin. docs/judgement.md has the rules.",
)
VERDICT_NUMBERS = (
    *("effect", "seeds_low", "seeds_high", "seeds_and_images_low", "seeds_and_images_high"),
    *("p_value", "corrected_p"),
)
VERDICT_COLUMNS = (
    *("id", "where", "claim", "metric", "method", "against", "better", "dataset", "architecture"),
    *VERDICT_NUMBERS,
    *("n_method", "n_against", "comparison", "seeds_method", "seeds_against"),
    *("outcome", "reason", "missing", "settings", "seeds_for_power", "left_out", "pool"),
)
NO_INTERVAL = (math.nan, math.nan)


def verdict_table(pool: Pool, verdicts: list[Verdict]) -> Table:
    """Return one block per table or figure of the paper, one group per claim, one row per dataset and network.

    verdicts: of this pool, from ``judge``.
    """
    blocks: dict[str, list[tuple[Row, ...]]] = {}
    for claim, judged in _by_claim(verdicts):
        group = name_once((claim.claim, *_texts(verdict)) for verdict in judged)
        blocks.setdefault(claim.where, []).append(group)
    left_out = [note for verdict in verdicts if verdict.outcome != NOT_RUN for note in verdict.left_out]
    return Table(
        title=f"Verdicts on the claims, {pool.name}",
        columns=COLUMNS,
        blocks=tuple(Block(where, tuple(groups)) for where, groups in blocks.items()),
        frame=verdict_frame(verdicts),
        intro=_setting(pool),
        notes=(*NOTES, *dict.fromkeys(left_out), *footer(pool)),
    )


def summary_table(pool: Pool, verdicts: list[Verdict]) -> Table:
    """Return one row per claim, one block per table or figure of the paper: the number of verdicts by outcome."""
    frame = summary_frame(verdicts)
    blocks = []
    for where, claims in frame.groupby("where", sort=False):
        counts = claims[["claim", *map(_column, OUTCOMES)]].itertuples(index=False)
        rows = tuple((claim, *(str(number) if number else ABSENT for number in numbers)) for claim, *numbers in counts)
        blocks.append(Block(where, (rows,)))
    title = f"Summary of the verdicts on the claims, {pool.name}"
    return Table(title, SUMMARY_COLUMNS, tuple(blocks), frame, _setting(pool), (SUMMARY_NOTE,))


def verdict_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """Return one row per verdict as numbers, with the kind of comparison."""
    records = []
    for verdict in verdicts:
        claim = verdict.claim
        record = {
            part: getattr(claim, part) for part in ("id", "where", "claim", "metric", "method", "against", "better")
        }
        record |= {"dataset": verdict.dataset, "architecture": verdict.architecture}
        record["effect"] = verdict.effect.value if verdict.effect else math.nan
        for name, estimate in (("seeds", verdict.effect), ("seeds_and_images", verdict.with_images)):
            low, high = estimate.interval if estimate else NO_INTERVAL
            record |= {f"{name}_low": low, f"{name}_high": high}
        record |= {"p_value": verdict.p_value, "corrected_p": verdict.corrected_p}
        record |= {"n_method": verdict.seeds[0], "n_against": verdict.seeds[1], "comparison": verdict.comparison}
        for name, seeds in zip(("seeds_method", "seeds_against"), verdict.compared, strict=True):
            record[name] = " ".join(map(str, seeds))
        record |= {"outcome": verdict.outcome, "reason": verdict.reason, "missing": verdict.missing}
        record |= {"settings": " ".join(verdict.settings), "seeds_for_power": verdict.seeds_for_power}
        record |= {"left_out": " ".join(verdict.left_out), "pool": verdict.pool}
        records.append(record)
    return pd.DataFrame(records, columns=list(VERDICT_COLUMNS)).astype({"seeds_for_power": "Int64"})


def summary_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """Return one row per claim: its number of verdicts, the number with each outcome, and a sentence."""
    records = []
    for claim, judged in _by_claim(verdicts):
        counts = Counter(verdict.outcome for verdict in judged)
        others = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if outcome != HOLDS and counts[outcome]]
        record = {"id": claim.id, "where": claim.where, "claim": claim.claim, "cells": len(judged)}
        record |= {_column(outcome): counts[outcome] for outcome in OUTCOMES}
        text = f"Holds on {counts[HOLDS]} of {len(judged)}" + (f" ({', '.join(others)})" if others else "")
        records.append(record | {"summary": text})
    columns = ["id", "where", "claim", "cells", *map(_column, OUTCOMES), "summary"]
    return pd.DataFrame(records, columns=columns)


def _column(outcome: str) -> str:
    return outcome.replace(" ", "_")


def _by_claim(verdicts: list[Verdict]) -> list[tuple[Claim, list[Verdict]]]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.claim.id, []).append(verdict)
    return [(judged[0].claim, judged) for judged in groups.values()]


def _setting(pool: Pool) -> tuple[str, ...]:
    warning = f"{pool.name} is not the paper's setting: no verdict on the paper itself."
    return (*(() if pool.name == PAPER else (warning,)), *introduction(pool))


def _texts(verdict: Verdict) -> Row:
    estimate, effect = verdict.with_images or verdict.effect, ABSENT
    if estimate:
        over_images = verdict.with_images is not None
        effect = effect_text(estimate.value, estimate.interval, verdict.claim.decimals, over_images)
    with_images = verdict.with_images is not None
    return (
        verdict.dataset,
        verdict.architecture,
        effect,
        seeds_text(*verdict.seeds, verdict.comparison),
        outcome_text(verdict.outcome, verdict.pool),
        reason_text(
            verdict.reason,
            verdict.claim.metric,
            missing=verdict.missing,
            settings=verdict.settings,
            seeds_for_power=verdict.seeds_for_power,
            with_images=with_images,
        ),
    )


def outcome_text(outcome: str, pool: str) -> Outcome:
    """Return the outcome, with the pool's name unless the pool is the paper's recipe."""
    return Outcome(outcome, "" if pool == PAPER else f" ({pool})")


def reason_text(
    reason: str,
    metric: str,
    *,
    missing: str = "",
    settings: Iterable[str] = (),
    seeds_for_power: int | None = None,
    with_images: bool = False,
) -> str:
    """Return the sentence for a verdict's reason; ``metric`` is the claim's, the others are fields of ``Verdict``."""
    side = {"method": "the method", "against": "the other", "both": "either"}.get(missing, "")
    difference = _margin_text(metric)
    found = f"find a difference of {difference} with 80 % power"
    return {
        EXCLUDES_ZERO: f"Excludes 0 over {'seeds and test images' if with_images else 'seeds'}.",
        WITHIN_MARGIN: f"No difference larger than {difference}.",
        NO_RUN: f"No finished run of {side}.",
        NO_VALUE: f"No value of {side}.",
        SETTINGS_DIFFER: f"Settings differ: {', '.join(settings)}.",
        ONE_SEED: "One seed decides nothing.",
        NO_SPREAD: "No spread between seeds: equal values prove nothing.",
        EARLIER_CLAIM: "Excludes 0, but an earlier primary claim does not hold.",
        CORRECTION: "Excludes 0 alone, but not after the correction for the number of claims.",
        SMALL_TEST_SET: f"The test set is too small to {found}.",
        TOO_MANY_SEEDS: f"More than {MAX_SEEDS:,} seeds of each would be needed to {found}.",
        MORE_SEEDS: f"{seeds_for_power} seeds of each would {found}." if seeds_for_power else "More seeds are needed.",
    }[reason]


def _margin_text(metric: str) -> str:
    found = all_metrics()[metric]
    if found.equivalence_margin is None:
        return ""
    unit = found.unit if found.scale != PERCENT else "point" if found.equivalence_margin == 1 else "points"
    return f"{found.equivalence_margin:g} {unit}"


def seeds_text(method: int, against: int, comparison: str) -> str:
    """Return the finished seeds of both sides, and the number of pairs if it is smaller."""
    pairs = min(method, against)
    fewer = comparison == PAIRED and pairs < max(method, against)
    return f"{method}/{against}" + (f" [{pairs}]" if fewer else "")


def effect_text(value: float, interval: tuple[float, float], decimals: int, over_images: bool) -> str:
    """Return an effect with its interval if known, marked if the interval is over seeds alone."""
    text, ends = number_text(value, decimals, sign=True), interval_text(interval, decimals, sign=True)
    return f"{text} {ends}{'' if over_images else SEEDS_ALONE}" if ends else text
