"""The verdicts as tables: each cell with its intervals, and what each claim comes to."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.claims.claims import Claim
from analysis.claims.verdicts import (
    EXCLUDES_ZERO,
    HOLDS,
    MORE_SEEDS,
    NO_RUN,
    NO_SPREAD,
    NO_VALUE,
    NOT_RUN,
    ONE_SEED,
    OUTCOMES,
    PAIRED,
    SETTINGS_DIFFER,
    SMALL_TEST_SET,
    TOO_MANY_SEEDS,
    Verdict,
)
from analysis.load.pools import PAPER, Pool
from analysis.stats.intervals import MAX_SEEDS
from analysis.tables.model import ABSENT, Block, Column, Table, signed
from analysis.tables.provenance import footer, introduction

SEEDS_ALONE = "*"  # marks intervals that other test images might not bear out
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
NOTES = (
    "Effect: the method minus the other after the last epoch, in the metric's unit (percentage points; a ratio for "
    "features): the mean difference on the seeds that both have, by pairs, or of the means where their seeds differ. "
    "n: finished seeds of the method/of the other; in brackets the pairs, where they are fewer.",
    f"95 %: the interval over seeds and test images; {SEEDS_ALONE} over seeds alone, for these very test images. "
    "Holds, contradicted: it excludes 0. Seeds that would decide: if effect and spread stayed as they are.",
    "Each interval is one of 95 % by itself; nothing is corrected for the number of claims.",
)


def verdict_table(pool: Pool, verdicts: list[Verdict]) -> Table:
    """One block a table or figure of the paper, one group a claim, one row a dataset and network.

    verdicts: of this pool, from ``judge``.
    """
    blocks: dict[str, list[tuple[tuple[str, ...], ...]]] = {}
    for claim, own in _by_claim(verdicts):
        texts = [_texts(verdict) for verdict in own]
        # a claim is told once, before its cells
        group = tuple((claim.claim if not index else "", *text) for index, text in enumerate(texts))
        blocks.setdefault(claim.where, []).append(group)
    judged = [verdict for verdict in verdicts if verdict.outcome != NOT_RUN]
    left_out = dict.fromkeys(sentence for verdict in judged for sentence in verdict.left_out)
    return Table(
        title=f"Verdicts on the paper's claims, {pool.name}",
        columns=COLUMNS,
        blocks=tuple(Block(where, tuple(groups)) for where, groups in blocks.items()),
        frame=verdict_frame(verdicts),
        intro=_setting(pool),
        notes=(*NOTES, *left_out, *footer(pool)),
    )


def summary_table(pool: Pool, verdicts: list[Verdict]) -> Table:
    """One row a claim, one block a table or figure of the paper: on how many cells it holds."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for claim, own in _by_claim(verdicts):
        counts = Counter(verdict.outcome for verdict in own)
        row = (claim.claim, *(str(counts[outcome]) if counts[outcome] else ABSENT for outcome in OUTCOMES))
        groups.setdefault(claim.where, []).append(row)
    return Table(
        title=f"What the paper's claims come to, {pool.name}",
        columns=SUMMARY_COLUMNS,
        blocks=tuple(Block(where, (tuple(rows),)) for where, rows in groups.items()),
        frame=summary_frame(verdicts),
        intro=_setting(pool),
        notes=("On how many of its datasets and networks each claim holds; which and why: the verdicts.",),
    )


def verdict_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """A row a verdict in plain numbers: what the table says, and how the runs were compared."""
    records = []
    for verdict in verdicts:
        claim = verdict.claim
        record = {
            part: getattr(claim, part) for part in ("id", "where", "claim", "metric", "method", "against", "better")
        }
        record |= {"dataset": verdict.dataset, "architecture": verdict.architecture}
        record["effect"] = verdict.effect.value if verdict.effect else np.nan
        for name, estimate in (("seeds", verdict.effect), ("seeds_and_images", verdict.with_images)):
            low, high = estimate.interval if estimate else (np.nan, np.nan)
            record |= {f"{name}_low": low, f"{name}_high": high}
        record |= {"n_method": verdict.seeds[0], "n_against": verdict.seeds[1], "comparison": verdict.comparison}
        for name, seeds in zip(("seeds_method", "seeds_against"), verdict.compared, strict=True):
            record[name] = " ".join(map(str, seeds))
        record |= {"outcome": verdict.outcome, "reason": verdict.reason, "missing": verdict.missing}
        record |= {"settings": " ".join(verdict.settings), "seeds_needed": verdict.seeds_needed}
        record |= {"left_out": " ".join(verdict.left_out), "pool": verdict.pool}
        records.append(record)
    return pd.DataFrame(records).astype({"seeds_needed": "Int64"})


def summary_frame(verdicts: list[Verdict]) -> pd.DataFrame:
    """A row a claim: its number of cells, and how many have each outcome."""
    records = []
    for claim, own in _by_claim(verdicts):
        counts = Counter(verdict.outcome for verdict in own)
        record = {"id": claim.id, "where": claim.where, "claim": claim.claim, "cells": len(own)}
        record |= {outcome.replace(" ", "_"): counts[outcome] for outcome in OUTCOMES}
        records.append(record | {"summary": _holds_on(own)})
    return pd.DataFrame(records)


def _by_claim(verdicts: list[Verdict]) -> Iterable[tuple[Claim, list[Verdict]]]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.claim.id, []).append(verdict)
    return [(own[0].claim, own) for own in groups.values()]


def _holds_on(verdicts: list[Verdict]) -> str:
    """Holds on 3 of 5 (1 contradicted, 1 not run)."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    others = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if outcome != HOLDS and counts[outcome]]
    return f"Holds on {counts[HOLDS]} of {len(verdicts)}" + (f" ({', '.join(others)})" if others else "")


def _setting(pool: Pool) -> tuple[str, ...]:
    message = (
        () if pool.name == PAPER else (f"{pool.name} is not the paper's setting: no verdict on the paper itself.",)
    )
    return (*message, *introduction(pool))


def _texts(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.dataset,
        verdict.architecture,
        _effect_text(verdict),
        seeds_text(*verdict.seeds, verdict.comparison),
        outcome_text(verdict.outcome, verdict.pool),
        reason_text(
            verdict.reason, verdict.missing, verdict.settings, verdict.seeds_needed, verdict.with_images is not None
        ),
    )


def outcome_text(outcome: str, pool: str) -> str:
    """Return the outcome, with the pool's name unless the pool is the paper's recipe."""
    return outcome if pool == PAPER else f"{outcome} ({pool})"


def reason_text(reason: str, missing: str, settings: Iterable[str], seeds_needed: int | None, with_images: bool) -> str:
    """Return the sentence for a verdict's reason; the arguments are fields of ``Verdict``."""
    side = {"method": "the method", "against": "the other", "both": "either"}.get(missing, "")
    return {
        EXCLUDES_ZERO: f"Excludes 0 over {'seeds and test images' if with_images else 'seeds'}.",
        NO_RUN: f"No finished run of {side}.",
        NO_VALUE: f"No value of {side}.",
        SETTINGS_DIFFER: f"Settings differ: {', '.join(settings)}.",
        ONE_SEED: "One seed decides nothing.",
        NO_SPREAD: "No spread between seeds: equal values prove nothing.",
        SMALL_TEST_SET: "More seeds would not decide: the test set is too small.",
        TOO_MANY_SEEDS: f"More than {MAX_SEEDS:,} seeds would be needed.",
        MORE_SEEDS: f"{seeds_needed} seeds of each would decide.",
    }[reason]


def _effect_text(verdict: Verdict) -> str:
    estimate = verdict.with_images or verdict.effect
    if estimate is None:
        return ABSENT
    return effect_text(estimate.value, estimate.interval, verdict.claim.decimals, verdict.with_images is not None)


def seeds_text(method: int, against: int, comparison: str) -> str:
    """Return the finished seeds of both sides, and the number of pairs if it is smaller."""
    pairs = min(method, against)
    fewer = comparison == PAIRED and pairs < max(method, against)
    return f"{method}/{against}" + (f" [{pairs}]" if fewer else "")


def effect_text(value: float, interval: tuple[float, float], decimals: int, over_images: bool) -> str:
    """An effect with its interval, if that is known; marked where it is over seeds alone."""
    text = f"{value:+.{decimals}f}"
    if np.isfinite(interval).all():
        low, high = interval
        text += f" [{low:+.{decimals}f}, {high:+.{decimals}f}]{'' if over_images else SEEDS_ALONE}"
    return signed(text)
