"""The cells on which each claim is judged, by the profile and the datasets of a pool."""

from builders import make_pool

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import HOLDS, judge
from analysis.tables.verdicts import summary_table, verdict_table

CLAIMS = {claim.id: claim for claim in load_claims()}
LOWER, HIGH = {0: 22.1, 1: 21.8, 2: 22.2}, {0: 24.2, 1: 24.9, 2: 24.4}


def both(place):
    return {f"{place}/cross-entropy": HIGH, f"{place}/cs-kd": LOWER}


def test_papers_profile_is_judged_on_every_claim():
    domains = {
        f"merged/resnet18/{method}": {seed: {"domain_accuracy_dogs": start + seed * step} for seed in range(3)}
        for method, start, step in (("cross-entropy", 94.0, 0.1), ("cs-kd", 97.0, 0.3))
    }
    found = judge(make_pool(both("cifar100/resnet18") | domains), load_claims(), {})
    judged = [(verdict.claim.id, verdict.dataset, verdict.architecture) for verdict in found]
    expected = sum(len(claim.datasets) * len(claim.architectures) for claim in CLAIMS.values())
    assert len(set(judged)) == len(judged) == expected
    assert ("error-imagenet", "imagenet", "resnext101_32x4d") in judged
    holding = {verdict.claim.id for verdict in found if verdict.outcome == HOLDS}
    assert holding == {"error-cross-entropy", "domain-accuracy-dogs"}


def test_another_profile_is_judged_on_its_own_cells_once_each():
    cells = both("cifar100/resnet10") | {"merged/resnet10/cross-entropy": HIGH, "tinyimagenet/densenet41/cs-kd": LOWER}
    found = judge(make_pool(cells, "mini"), load_claims(), {})
    places = {(verdict.dataset, verdict.architecture) for verdict in found}
    assert places == {("cifar100", "resnet10"), ("tinyimagenet", "densenet41"), ("merged", "resnet10")}
    comparisons = [
        (verdict.claim.metric, verdict.claim.method, verdict.claim.against, verdict.dataset, verdict.architecture)
        for verdict in found
    ]
    assert len(set(comparisons)) == len(comparisons)  # tables 1 and 4 claim the same
    assert "tinyimagenet" not in {verdict.dataset for verdict in found if verdict.claim.id == "error-ddgsd"}
    assert {verdict.claim.where for verdict in found if verdict.dataset == "merged"} == {"figure 4"}


def test_dataset_of_ones_own_is_judged_on_ones_own_claims_and_on_the_papers_except_figure_4():
    own = {"id": "mine", "where": "ours", "metric": "nll", "datasets": ("flowers",)}
    claims = (*load_claims(), CLAIMS["error-cross-entropy"].model_copy(update=own))
    found = judge(make_pool(both("flowers/resnet10"), "mini"), claims, {})
    assert {"mine", "error-cross-entropy"} <= {verdict.claim.id for verdict in found}
    assert {verdict.dataset for verdict in found} == {"flowers"}
    assert "figure 4" not in {verdict.claim.where for verdict in found}


def test_method_of_no_claim_gives_empty_tables():
    pool = make_pool({"cifar100/resnet10/mine": {0: 1.0}}, "mini")
    assert judge(pool, load_claims(), {}) == []
    for make in (verdict_table, summary_table):
        assert make(pool, []).blocks == ()
