"""What one method changes beside another in an experiment: lines for the terminal."""

from statistics import fmean

import numpy as np

from analysis.claims.claims import OURS, Claim, load_claims
from analysis.claims.comparison import Comparison, Side, compare, other_values, side_of
from analysis.claims.verdicts import NOT_RUN, UNDECIDED, Verdict, judge, verdict_frame
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.format import interval_text
from analysis.tables.verdicts import verdict_texts
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import all_metrics
from cskd.utils.numbers import number_text

READ = {"top1_error": "error", "ece": "ECE"}
Cell = tuple[str, str]  # dataset, architecture


def reading(pool: Pool, evaluations: Evaluations) -> list[list[str]]:
    """Return lines about each pair of methods with finished runs: a heading, error, ECE, verdict and reading.

    The pairs are CS-KD beside cross-entropy, a method with CS-KD added beside it alone, and those of own claims.
    The verdicts are corrected for the claims on this pool alone.
    """
    claims = load_claims()
    verdicts = judge(pool, claims, evaluations)
    parts = []
    for dataset, architecture in pool.groups:
        for pair in dict.fromkeys((claim.method, claim.against) for claim in claims if _is_read(claim)):
            sides = {
                name: tuple(side_of(pool, dataset, architecture, method, name, evaluations) for method in pair)
                for name in READ
            }
            method, against = sides["top1_error"]
            if method.values and against.values and method.settings == against.settings:
                cell = dataset, architecture
                of_pair = [verdict for verdict in verdicts if _is_about(verdict, cell, pair)]
                parts.append(_lines(pool, cell, pair, sides, of_pair, evaluations))
    return parts


def _is_read(claim: Claim) -> bool:
    added = claim.method == f"{claim.against}+{CS_KD}"
    return added or claim.where == OURS or (claim.method, claim.against) == (CS_KD, BASELINE)


def _is_about(verdict: Verdict, cell: Cell, pair: tuple[str, str]) -> bool:
    claim = verdict.claim
    return (verdict.dataset, verdict.architecture) == cell and (claim.method, claim.against) == pair


def _lines(
    pool: Pool,
    cell: Cell,
    pair: tuple[str, str],
    sides: dict[str, tuple[Side, Side]],
    verdicts: list[Verdict],
    evaluations: Evaluations,
) -> list[str]:
    counts = dict.fromkeys(str(len(side.values)) for side in sides["top1_error"])
    lines = [f"{pair[0]} beside {pair[1]}: {', '.join(cell)}, n={'/'.join(counts)}, change [95 % interval]"]
    comparisons = {}
    for name, label in READ.items():
        method, against = sides[name]
        if not (method.values and against.values):
            continue
        others = other_values(pool, *cell, pair, name, evaluations)
        comparisons[name] = compare(method, against, others, name, evaluations)
        lines.append(f"  {label:<7}  {_change(name, method, against, comparisons[name])}")
    lines.append(f"  verdict  {_verdict(verdicts)}")
    text = _reading(pair, sides["top1_error"], comparisons.get("ece"), evaluations)
    return [*lines, f"  reading  {text}"] if text else lines


def _change(name: str, method: Side, against: Side, comparison: Comparison) -> str:
    metric = all_metrics()[name]
    before, after = (number_text(fmean(side.values.values()), metric.decimals) for side in (against, method))
    difference = number_text(comparison.effect.value, metric.decimals, sign=True)
    reason = "one seed" if min(map(len, comparison.seeds)) == 1 else "a side has no spread between seeds"
    interval = interval_text(comparison.widest.interval, metric.decimals, sign=True) or f"(no interval: {reason})"
    return f"{before} % \N{RIGHTWARDS ARROW} {after} %: {difference} {interval}"


def _verdict(verdicts: list[Verdict]) -> str:
    """Return the outcome for each metric of READ with a claim, and why it is undecided."""
    texts = []
    for verdict in verdicts:
        if verdict.claim.metric in READ and verdict.outcome != NOT_RUN:
            (row,) = verdict_frame([verdict]).itertuples()
            *_, outcome, reason = verdict_texts(row)
            reason = f" ({reason.rstrip('.')})" if verdict.outcome == UNDECIDED else ""
            texts.append(f"lower {READ[verdict.claim.metric]}: {outcome.outcome}{reason}")
    return "; ".join(texts) or "no claim is about these methods, this dataset and this network"


def _reading(pair: tuple[str, str], sides: tuple[Side, Side], ece: Comparison | None, evaluations: Evaluations) -> str:
    """Return how mean confidence and accuracy differ, and whether that explains the change of the ECE."""
    gaps = []
    for side in sides:
        bins = [evaluations[key].bins for key in side.run_keys.values() if key in evaluations]
        if not bins:
            return ""
        gaps.append(fmean(-100 * float(np.nansum(each.count * each.gap) / each.count.sum()) for each in bins))
    method_gap, other_gap = gaps
    method, other = pair
    text = f"confidence minus accuracy is {_points(other_gap)} points with {other}, {_points(method_gap)} with {method}"
    if ece is None or not ece.widest.excludes_zero:
        return f"{text}: no clear change of the ECE."
    if ece.effect.value > 0 and method_gap < 0 and method_gap < other_gap:
        surplus = f"over-confident by less than {method} removes" if other_gap > 0 else "not over-confident"
        return f"{text}: {other} is {surplus}, so the ECE is higher."
    if ece.effect.value < 0 and abs(method_gap) < other_gap:
        return f"{text}: {method} removes over-confidence of {other}, so the ECE is lower."
    return f"{text}."


def _points(gap: float) -> str:
    return number_text(gap, 1, sign=True)
