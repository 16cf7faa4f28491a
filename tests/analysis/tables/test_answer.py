"""The first table of the report: error, ECE and verdict of every pool, dataset and network."""

from builders import make_pool

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import judge
from analysis.tables.answer import answer_table
from cskd.utils.numbers import ABSENT


def values(errors, ece):
    return {seed: {"top1_error": error, "ece": ece + seed / 10} for seed, error in enumerate(errors)}


def judged(cells, **pool):
    made = make_pool(cells, **pool)
    return made, judge(made, load_claims(), {})


def test_each_dataset_and_network_of_every_pool_has_error_ece_and_verdicts():
    both = {
        "cifar100/resnet18/cross-entropy": values((24.2, 24.6, 24.4), 15),
        "cifar100/resnet18/cs-kd": values((22.1, 21.9, 22.2), 5),
    }
    own = {"flowers/resnet10/my-own": values((9,), 3), "dogs/resnet10/cs-kd": {0: "failed"}}
    [block] = answer_table([judged(both), judged(own, profile="mini")]).blocks
    [[paper, other]] = block.groups
    assert paper[0] == "cifar100, resnet18: paper, 200 epochs" and paper[0].address == "#paper"
    assert paper[1:] == ("24.40 ± 0.20", "22.07 ± 0.15", "holds", "15.10 ± 0.10", "5.10 ± 0.10", "holds", "3")
    assert other[0].startswith("flowers, resnet10: mini")
    assert other[1:] == (ABSENT, ABSENT, "not run", ABSENT, ABSENT, "not run", "1")
