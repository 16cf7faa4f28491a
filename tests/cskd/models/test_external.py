"""Networks of torchvision and timm, and weights that training starts from."""

import pytest
import torch
import torchvision

from cskd.methods import build_method
from cskd.models import build_model, check_architecture
from cskd.models.weights import load_weights, start_from
from cskd.utils.errors import UserError

SMALL = "torchvision:mobilenet_v3_small"


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32"])
def test_torchvision_network_computes_the_same_as_in_its_library(name):
    size = {"image_size": 224} if name.startswith("vit") else {}
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, **size).eval()
    torch.manual_seed(0)
    ours = build_model(f"torchvision:{name}", 1000, 224).eval()
    *_, last = (module for module in theirs.modules() if isinstance(module, torch.nn.Linear))
    ours.head.load_state_dict(last.state_dict())
    inputs = torch.nn.functional.interpolate(images(), 224)
    with torch.no_grad():
        assert torch.equal(ours(inputs), theirs(inputs))


@pytest.mark.parametrize("name", ["convnext_atto", "lcnet_050", "resnet18", "vit_tiny_patch16_224"])
def test_timm_network_computes_the_same_as_in_its_library(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0).eval()
    torch.manual_seed(0)
    ours = build_model(f"timm:{name}", 5, 224).eval()
    inputs = torch.nn.functional.interpolate(images(), 224)
    with torch.no_grad():
        assert torch.equal(ours.backbone(inputs), theirs(inputs))
        assert ours(inputs).shape == (2, 5)
        maps = ours.backbone.stage_maps(inputs)
    channels = ours.backbone.stage_channels
    assert channels == () or channels == tuple(feature_map.shape[1] for feature_map in maps)


def test_byot_needs_a_network_with_stages():
    byot = build_method("byot")
    model = build_model("torchvision:resnet18", 5, 64, build_auxiliary=byot.build_auxiliary)
    features, logits = model.auxiliary(model.backbone.stage_maps(images()))[0]
    assert (features.shape, logits.shape) == ((2, 512), (2, 5))
    with pytest.raises(UserError, match="four stages"):
        build_model(SMALL, 5, 64, build_auxiliary=byot.build_auxiliary)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "unknown architecture 'resnet19': did you mean resnet1.*torchvision:<network>"),
        ("torchvision:resnet19", "torchvision network 'resnet19'"),
        ("keras:resnet50", "library of networks 'keras'"),
    ],
)
def test_unknown_network_is_a_one_line_error(name, message):
    with pytest.raises(UserError, match=message):
        check_architecture(name)


def test_weights_of_a_file_replace_the_backbones_and_not_the_heads(tmp_path):
    theirs = torchvision.models.mobilenet_v3_small()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pt")
    state, digest = load_weights(SMALL, "weights.pt", tmp_path)
    model = build_model(SMALL, 5, 64)
    head = model.head.weight.clone()
    start_from(model, state)
    assert torch.equal(model.backbone.network.features[0][0].weight, theirs.features[0][0].weight)
    assert torch.equal(model.head.weight, head)
    state["features.0.0.weight"] = state["features.0.0.weight"] + 1
    torch.save(state, tmp_path / "others.pt")
    assert load_weights(SMALL, "others.pt", tmp_path)[1] != digest


def test_weights_of_an_own_run_start_the_same_network(tmp_path):
    trained = build_model("resnet10", 4, 32, width=4)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    model = build_model("resnet10", 7, 32, width=4)
    start_from(model, load_weights("resnet10", "weights.pt", tmp_path)[0])
    assert torch.equal(model.backbone.conv1.weight, trained.backbone.conv1.weight)


def test_unusable_weights_are_one_line_errors(tmp_path):
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1], tmp_path / "list.pt")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "other.pt")
    for architecture, weights, message in (
        ("resnet18", "missing.pt", "no file of weights .*missing.pt"),
        ("resnet18", "text.pt", "text.pt is not a state_dict"),
        ("resnet18", "list.pt", "list.pt is not a state_dict"),
        (SMALL, "IMAGENET1K_V9", "'IMAGENET1K_V9' cannot be had"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(architecture, weights, tmp_path)
    with pytest.raises(UserError, match="another network"):
        start_from(build_model(SMALL, 5, 64), load_weights(SMALL, "other.pt", tmp_path)[0])
