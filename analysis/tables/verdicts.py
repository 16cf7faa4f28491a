"""The verdicts on the claims as tables: one row per comparison, or one row per claim."""

import math
from collections import Counter

import pandas as pd

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
    verdict_frame,
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
SUMMARY_NOTE = "The number of datasets and networks with each verdict. The table of verdicts says which, and why."
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


def verdict_table(pool: Pool, verdicts: list[Verdict]) -> Table:
    """Return one block per table or figure of the paper, one group per claim, one row per dataset and network.

    verdicts: of this pool, from ``judge``.
    """
    frame = verdict_frame(verdicts)
    blocks: dict[str, list[tuple[Row, ...]]] = {}
    for _, rows in frame.groupby("id", sort=False):
        group = name_once((row.claim, *verdict_texts(row)) for row in rows.itertuples())
        blocks.setdefault(rows["where"].iloc[0], []).append(group)
    left_out = [note for verdict in verdicts if verdict.outcome != NOT_RUN for note in verdict.left_out]
    return Table(
        title=f"Verdicts on the claims, {pool.title}",
        columns=COLUMNS,
        blocks=tuple(Block(where, tuple(groups)) for where, groups in blocks.items()),
        frame=frame,
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
    title = f"Summary of the verdicts on the claims, {pool.title}"
    return Table(title, SUMMARY_COLUMNS, tuple(blocks), frame, _setting(pool), (SUMMARY_NOTE,))


def summary_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """Return one row per claim: its number of verdicts, the number with each outcome, and a sentence."""
    records = []
    for (name, where, claim), rows in verdict_frame(verdicts).groupby(["id", "where", "claim"], sort=False):
        counts = Counter(rows.outcome)
        others = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if outcome != HOLDS and counts[outcome]]
        text = f"Holds on {counts[HOLDS]} of {len(rows)}" + (f" ({', '.join(others)})" if others else "")
        numbers = {_column(outcome): counts[outcome] for outcome in OUTCOMES}
        records.append({"id": name, "where": where, "claim": claim, "cells": len(rows), **numbers, "summary": text})
    columns = ["id", "where", "claim", "cells", *map(_column, OUTCOMES), "summary"]
    return pd.DataFrame(records, columns=columns)


def _column(outcome: str) -> str:
    return outcome.replace(" ", "_")


def _setting(pool: Pool) -> tuple[str, ...]:
    warning = f"{pool.title} is not the paper's setting: no verdict on the paper itself."
    return (*(() if pool.name == PAPER else (warning,)), *introduction(pool))


def verdict_texts(row) -> Row:
    """Return dataset, network, effect, seeds, outcome and reason of a row of ``verdict_frame``."""
    over_images = not math.isnan(row.seeds_and_images_low)
    interval = (row.seeds_and_images_low, row.seeds_and_images_high) if over_images else (row.seeds_low, row.seeds_high)
    decimals = all_metrics()[row.metric].decimals
    effect, ends = number_text(row.effect, decimals, sign=True), interval_text(interval, decimals, sign=True)
    method, against = int(row.n_method), int(row.n_against)
    pairs = f" [{min(method, against)}]" if row.comparison == PAIRED and method != against else ""
    return (
        row.dataset,
        row.architecture,
        f"{effect} {ends}{'' if over_images else SEEDS_ALONE}" if ends else effect,
        f"{method}/{against}{pairs}",
        Outcome(row.outcome, "" if row.pool == PAPER else f" ({row.pool})"),
        _reason_text(row, over_images),
    )


def _reason_text(row, over_images: bool) -> str:
    side = {"method": "the method", "against": "the other", "both": "either"}.get(row.missing, "")
    difference = _margin_text(row.metric)
    found = f"find a difference of {difference} with 80 % power"
    more = "More seeds are needed."
    if not pd.isna(row.seeds_for_power):
        more = f"{row.seeds_for_power:.0f} seeds of each would {found}."
    return {
        EXCLUDES_ZERO: f"Excludes 0 over {'seeds and test images' if over_images else 'seeds'}.",
        WITHIN_MARGIN: f"No difference larger than {difference}.",
        NO_RUN: f"No finished run of {side}.",
        NO_VALUE: f"No value of {side}.",
        SETTINGS_DIFFER: f"Settings differ: {', '.join(row.settings.split())}.",
        ONE_SEED: "One seed decides nothing.",
        NO_SPREAD: "No spread between the seeds of a side: equal values prove nothing.",
        EARLIER_CLAIM: "Excludes 0, but an earlier primary claim does not hold.",
        CORRECTION: "Excludes 0 alone, but not after the correction for the number of claims.",
        SMALL_TEST_SET: f"The test set is too small to {found}.",
        TOO_MANY_SEEDS: f"More than {MAX_SEEDS:,} seeds of each would be needed to {found}.",
        MORE_SEEDS: more,
    }[row.reason]


def _margin_text(metric: str) -> str:
    found = all_metrics()[metric]
    if found.equivalence_margin is None:
        return ""
    unit = found.unit if found.scale != PERCENT else "point" if found.equivalence_margin == 1 else "points"
    return f"{found.equivalence_margin:g} {unit}"
