"""The sentences about CS-KD and cross-entropy that follow the tables."""

from builders import make_pool

from analysis.tables.reading import reading


def test_differences_have_their_interval_and_direction():
    baseline = {seed: {"top1_error": 20.0 + seed, "ece": 5.0 + seed} for seed in range(3)}
    cs_kd = {seed: {"top1_error": 10.0 + seed, "ece": 5.5 + seed} for seed in range(3)}
    pool = make_pool({"cifar100/resnet18/cross-entropy": baseline, "cifar100/resnet18/cs-kd": cs_kd})
    error, ece = reading(pool)
    # Both spreads are 1, so the interval is the difference \N{PLUS-MINUS SIGN} t(4) sqrt(2 / 3).
    change = "\N{MINUS SIGN}10.00 [\N{MINUS SIGN}12.27, \N{MINUS SIGN}7.73]: lower."
    assert error == f"cifar100, resnet18: Top-1 error 21.00 % with cross-entropy, 11.00 % with cs-kd: {change}"
    assert ece.endswith("+0.50 [\N{MINUS SIGN}1.77, +2.77]: may be chance.")


def test_one_seed_of_each_has_no_interval():
    values = {0: {"top1_error": 9.0, "ece": 1.0}}
    error, _ = reading(make_pool(dict.fromkeys(("cifar100/resnet18/cross-entropy", "cifar100/resnet18/cs-kd"), values)))
    assert error.endswith("0.00 (too few seeds for an interval).")


def test_without_runs_of_both_there_is_no_sentence():
    assert reading(make_pool({"cifar100/resnet18/cs-kd": {0: 10.0}})) == []
