"""The paper's claims agree with its numbers, claims of one's own are free, and an invalid file is a one-line error."""

import pytest
import yaml

from analysis.claims.claims import CLAIMS, OURS, load_claims
from analysis.paper.published import published_numbers
from cskd.utils.errors import UserError

PAPERS = [claim for claim in load_claims() if claim.where != OURS]


def test_published_means_bear_out_a_claim_exactly_on_its_datasets():
    numbers = published_numbers()
    for claim in PAPERS:
        cells = numbers[(numbers.metric == claim.metric) & numbers.architecture.isin(claim.architectures)]
        cells = cells.drop_duplicates(["dataset", "architecture", "method"]).set_index(["dataset", "architecture"])
        method, against = (cells[cells.method == name]["mean"] for name in (claim.method, claim.against))
        for (dataset, _), difference in (method - against).dropna().items():
            is_claimed = dataset in claim.datasets or dataset == "imagenet"  # table 5 has its own claim
            assert claim.is_borne_out(difference) == is_claimed, (claim.id, dataset)


def test_every_comparison_of_the_paper_is_claimed_once_and_every_method_is_in_a_claim():
    comparisons = [
        (claim.metric, claim.method, claim.against, dataset, architecture)
        for claim in PAPERS
        for dataset in claim.datasets
        for architecture in claim.architectures
    ]
    assert len(set(comparisons)) == len(comparisons)
    assert {name for claim in PAPERS for name in (claim.method, claim.against)} == set(published_numbers().method)


def write(folder, *entries):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


@pytest.fixture
def entry():
    return yaml.safe_load(CLAIMS.read_text())[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": "ece"}, "metrics: Extra inputs are not permitted"),
        ({"method": "kd+cskd"}, "unknown method 'cskd': did you mean cs-kd?"),
        ({"against": "cs-kd"}, "cs-kd is compared with itself: name another method"),
        ({"datasets": ["cifar10"]}, "unknown dataset 'cifar10': did you mean cifar100?"),
        ({"architectures": ["resnet18", "resnet18"]}, "architectures: a name is given twice: resnet18, resnet18"),
    ],
)
def test_invalid_claim_is_a_one_line_error(tmp_path, entry, change, message):
    with pytest.raises(UserError, match=r"claims\.yaml, claim error-cross-entropy: ") as caught:
        load_claims(write(tmp_path, entry | change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_claim_of_ones_own_may_be_on_any_dataset_and_network(tmp_path, entry):
    own = {"where": OURS, "datasets": ["flowers"], "architectures": ["torchvision:resnet50", "timm:convnext_tiny"]}
    [claim] = load_claims(write(tmp_path, entry | own))
    assert (claim.datasets, claim.architectures) == (("flowers",), tuple(own["architectures"]))
    with pytest.raises(UserError, match="unknown torchvision network 'resnet51': did you mean resnet"):
        load_claims(write(tmp_path, entry | own | {"architectures": ["torchvision:resnet51"]}))


def test_repeated_ids_and_files_without_a_list_are_one_line_errors(tmp_path, entry):
    with pytest.raises(UserError, match="claim error-cross-entropy: there are two claims with this id"):
        load_claims(write(tmp_path, entry, entry | {"datasets": ["dogs"], "architectures": ["resnet18"]}))
    for content in ("a: 1", "- just a text", "[1"):
        (tmp_path / "claims.yaml").write_text(content)
        with pytest.raises(UserError, match=r"^[^\n]*claims.yaml[^\n]*$"):
            load_claims(tmp_path / "claims.yaml")
