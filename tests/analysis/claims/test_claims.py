"""The list of claims: what the paper's own numbers say of it, and what a wrong list says."""

import pytest
import yaml

from analysis.claims.claims import CLAIMS, DOMAIN_METRICS, FEATURE_SPREAD, LOWER, load_claims
from analysis.paper.published import published, published_numbers
from cskd.methods import METHODS
from cskd.methods.label_smoothing import LabelSmoothing
from cskd.utils.errors import UserError

NOT_PUBLISHED = (*DOMAIN_METRICS, FEATURE_SPREAD)  # figure 4 and a measure of ours of figure 3


@pytest.mark.parametrize("claim", load_claims(), ids=lambda claim: claim.id)
def test_the_papers_own_means_bear_out_every_claim(claim):
    if claim.metric in NOT_PUBLISHED:
        assert published_numbers()[published_numbers().metric == claim.metric].empty
        return
    for dataset in claim.datasets:
        for architecture in claim.architectures:
            method, _ = published(architecture, dataset, claim.method, claim.metric)
            against, _ = published(architecture, dataset, claim.against, claim.metric)
            assert claim.is_borne_out(method - against), (dataset, architecture)


def test_a_dataset_is_left_out_only_where_the_papers_means_contradict_the_claim():
    for claim in load_claims():
        numbers = published_numbers()
        cells = numbers[(numbers.metric == claim.metric) & numbers.architecture.isin(claim.architectures)]
        cells = cells.drop_duplicates(["dataset", "architecture", "method"]).set_index(["dataset", "architecture"])
        means = [cells[cells.method == name]["mean"] for name in (claim.method, claim.against)]
        for (dataset, _), difference in (means[0] - means[1]).dropna().items():
            assert claim.is_borne_out(difference) == (dataset in claim.datasets) or dataset == "imagenet", claim.id


def test_every_comparison_is_claimed_once():
    made = [
        (claim.metric, claim.method, claim.against, dataset, architecture)
        for claim in load_claims()
        for dataset in claim.datasets
        for architecture in claim.architectures
    ]
    assert len(set(made)) == len(made)


def test_every_method_of_the_paper_is_in_a_claim():
    claims = load_claims()
    named = {claim.method for claim in claims} | {claim.against for claim in claims}
    assert named == set(published_numbers().method)


def test_a_claim_is_borne_out_by_a_difference_of_its_direction():
    claims = {claim.id: claim for claim in load_claims()}
    assert claims["error-cross-entropy"].better == LOWER
    assert claims["error-cross-entropy"].is_borne_out(-1)
    assert claims["recall-cross-entropy"].is_borne_out(1)
    assert not any(claims[name].is_borne_out(0) for name in ("error-cross-entropy", "recall-cross-entropy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": "ece"}, "unknown key 'metrics': choose from against, architectures, better,"),
        ({"metric": "top1"}, "unknown metric 'top1': choose from brier, domain_accuracy_cub200,"),
        ({"method": "kd+cskd"}, "unknown method 'cskd': choose from adacos, byot, cross-entropy, cs-kd,"),
        ({"method": "cs-kd+mixup"}, "method cs-kd+mixup is written mixup+cs-kd"),
        ({"against": "cs-kd"}, "cs-kd is compared with itself: name another method"),
        ({"better": "less"}, "unknown value of better 'less': choose from higher, lower"),
        ({"datasets": ["cifar10"]}, "unknown dataset 'cifar10': choose from cifar100,"),
        ({"datasets": "cifar100"}, "datasets must be a list of names, each once, not 'cifar100'"),
        ({"architectures": ["resnet18", "resnet18"]}, "architectures must be a list of names, each once"),
        ({"architectures": ["resnet"]}, "unknown architecture 'resnet': choose from densenet121,"),
        ({"datasets": [{"cifar100": 1}]}, "datasets must be a list of names, each once"),
        ({"where": 1}, "where must be a text, not 1"),
        ({"where": None}, "where must be a text, not None"),
    ],
)
def test_a_wrong_claim_is_named_in_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=r"claims\.yaml, claim error-cross-entropy: ") as raised:
        load_claims(written(tmp_path, [entry() | change]))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_claim_may_be_about_any_registered_method_and_any_sum_that_can_be_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mine", LabelSmoothing)
    names = [*METHODS, "mixup+cs-kd", "label-smoothing+cs-kd"]
    others = {"id": "x", "against": "cross-entropy"}
    entries = [entry() | others | {"id": name, "method": name} for name in names if name != others["against"]]
    claims = load_claims(written(tmp_path, entries))
    assert [claim.method for claim in claims] == [name for name in names if name != others["against"]]


def test_what_is_missing_from_a_claim_is_named(tmp_path):
    lacking = {key: value for key, value in entry().items() if key not in ("metric", "better")}
    with pytest.raises(UserError, match="claim error-cross-entropy: metric, better missing"):
        load_claims(written(tmp_path, [lacking]))


def test_two_claims_of_one_id_are_refused(tmp_path):
    with pytest.raises(UserError, match="claim error-cross-entropy: there are two of this id"):
        load_claims(written(tmp_path, [entry(), entry()]))


@pytest.mark.parametrize("content", ["a: 1", "", "- just a text", "[1"])
def test_what_is_no_list_of_claims_is_said_in_one_line(tmp_path, content):
    path = tmp_path / "claims.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"^[^\n]*claims.yaml[^\n]*$"):
        load_claims(path)
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read"):
        load_claims(tmp_path / "nowhere.yaml")


def entry() -> dict:
    return yaml.safe_load(CLAIMS.read_text())[0]


def written(folder, entries):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path
