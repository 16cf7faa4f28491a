"""The lines about a pair of methods that follow the tables."""

import dataclasses

import numpy as np
from builders import make_evaluations, make_pool

from analysis.tables.reading import reading
from cskd.evaluate.scores import reliability_bins

CE, CS = "cifar100/resnet18/cross-entropy", "cifar100/resnet18/cs-kd"
MINUS, ARROW = "\N{MINUS SIGN}", "\N{RIGHTWARDS ARROW}"
BASELINE = {seed: {"top1_error": 20.0 + seed, "ece": 5.0 + seed} for seed in range(3)}


def with_gap(evaluations: dict, gaps: dict[str, float]) -> dict:
    """Give each run's evaluation a mean confidence of its method's ``gap`` (a fraction) above its accuracy."""
    changed = {}
    for key, evaluation in evaluations.items():
        gap = next(gap for method, gap in gaps.items() if method in key)
        confidence, labels = (0.5 + gap, [0, 1]) if gap > 0 else (1 + gap, [0, 0])
        bins = reliability_bins(np.log([[confidence, 1 - confidence]] * 2), labels)
        changed[key] = dataclasses.replace(evaluation, bins=bins)
    return changed


def test_error_and_ece_have_their_interval_and_verdict():
    cs_kd = {seed: {"top1_error": 10.0 + seed, "ece": 5.5 + seed} for seed in range(3)}
    [(heading, error, ece, verdict)] = reading(make_pool({CE: BASELINE, CS: cs_kd}), {})
    assert heading == "cs-kd beside cross-entropy: cifar100, resnet18, n=3, change [95 % interval]"
    # Both spreads are 1, so the interval is the difference \N{PLUS-MINUS SIGN} t(4) sqrt(2 / 3).
    change = f"{MINUS}10.00 [{MINUS}12.27, {MINUS}7.73]"
    assert error.split(maxsplit=1) == ["error", f"21.00 % {ARROW} 11.00 %: {change}"]
    assert ece.endswith(f"+0.50 [{MINUS}1.77, +2.77]")
    assert verdict.startswith("  verdict  lower error: holds; lower ECE: undecided (")


def test_reading_explains_the_change_of_the_ece_by_the_confidence():
    def text(ece: float, **gaps: float) -> str:
        cs_kd = {seed: {"top1_error": 20.0 + seed, "ece": ece + seed} for seed in range(3)}
        pool = make_pool({CE: BASELINE, CS: cs_kd})
        gaps = {"cross-entropy": gaps["baseline"], "cs-kd": gaps["cs_kd"]}
        [lines] = reading(pool, with_gap(make_evaluations(pool, 0.1), gaps))
        return lines[-1]

    calibrated = text(15.0, baseline=0.002, cs_kd=-0.1)
    assert f"+0.2 points with cross-entropy, {MINUS}10.0 with cs-kd" in calibrated
    assert calibrated.endswith("over-confident by less than cs-kd removes, so the ECE is higher.")
    assert text(0.5, baseline=0.2, cs_kd=0.05).endswith(
        "removes over-confidence of cross-entropy, so the ECE is lower."
    )
    assert text(5.5, baseline=0.2, cs_kd=0.05).endswith("no clear change of the ECE.")


def test_one_seed_of_each_has_no_interval_and_no_verdict():
    values = {0: {"top1_error": 9.0, "ece": 1.0}}
    [(_, error, _, verdict)] = reading(make_pool({CE: values, CS: values}), {})
    assert error.endswith("0.00 (no interval: one seed)")
    assert "undecided (One seed decides nothing)" in verdict


def test_without_runs_of_both_there_is_nothing_to_read():
    assert reading(make_pool({CS: {0: 10.0}}), {}) == []


def test_methods_with_cs_kd_added_are_read_beside_the_method_alone():
    mixup = {
        name: {seed: 10.0 + seed for seed in range(3)}
        for name in (f"cifar100/resnet18/{method}" for method in ("mixup", "mixup+cs-kd"))
    }
    [lines] = reading(make_pool(mixup), {})
    assert lines[0].startswith("mixup+cs-kd beside mixup: ")
