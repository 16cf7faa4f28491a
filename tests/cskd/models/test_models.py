"""The networks against the paper's released networks."""

import itertools
import math

import pytest
import torch
import torchvision

from cskd.models import build_model
from cskd.utils.errors import UserError

# Logits in float64 of the paper's released networks (CIFAR_ResNet18, CIFAR_DenseNet121, resnet10, densenet121) for five
# classes and the first of four images: in training, and then in evaluation mode on the same network.
# `fill` and `images` make the weights and the images.
RELEASED = {
    ("resnet18", 32): (
        [1.365722775, 1.756646887, 2.101915736, 2.351664667, 2.472876338],
        [3573.352922475, 3779.289201039, 3734.279806662, 3441.287287063, 2919.755489574],
    ),
    ("resnet10", 224): (
        [-1.222437984, -0.668577005, 0.036171412, 0.838884291, 1.664165719],
        [27.313515058, 70.187366772, 108.505923438, 139.717989725, 161.728410207],
    ),
    ("densenet121", 32): (
        [-0.44204307, 0.630512634, 1.815530835, 2.790940427, 3.287805977],
        [2.542421988, 5.733087766, 7.703093784, 7.925279406, 6.327499959],
    ),
    ("densenet121", 224): (
        [-0.160676076, 0.893339799, 1.992723433, 2.853495069, 3.244256066],
        [3.524148228, 6.903195429, 8.757447853, 8.60570525, 6.481103108],
    ),
}


def fill(model: torch.nn.Module) -> None:
    """Set the weights by formula, in the order of the state_dict, which the released networks share."""
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.dtype.is_floating_point:
            wave = torch.sin(0.7 * torch.arange(tensor.numel(), dtype=torch.float64) + number).reshape(tensor.shape)
            if tensor.dim() > 1:
                tensor.copy_(wave * math.sqrt(2 / tensor[0].numel()))
            elif name.endswith("running_mean"):
                tensor.copy_(0.1 * wave)
            else:
                tensor.copy_(1 + 0.1 * wave)


def images(size: int) -> torch.Tensor:
    count = 4 * 3 * size * size
    return torch.sin(0.3 * torch.arange(count, dtype=torch.float64) ** 1.1).reshape(4, 3, size, size)


@pytest.mark.parametrize(("name", "size"), RELEASED)
def test_network_computes_the_released_networks_logits_in_four_stages(name, size):
    model, pixels = build_model(name, 5, size).double(), images(size)
    backbone = model.backbone
    fill(model)
    with torch.no_grad():
        training = model(pixels)[0]
        maps = model.eval().backbone.stage_maps(pixels[:1])
        features = backbone.pool(maps[-1])
        evaluation = model.head(features)[0]
    expected = torch.tensor(RELEASED[name, size], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([training, evaluation]), expected, rtol=1e-6, atol=1e-8)
    assert tuple(stage.shape[1] for stage in maps) == backbone.stage_channels
    assert features.shape == (1, backbone.feature_size)
    sides = [stage.shape[2] for stage in maps]
    assert all(2 * small == large for large, small in itertools.pairwise(sides))


@pytest.mark.parametrize(
    ("name", "classes", "size", "count"),
    [
        ("resnet18", 100, 32, 11_217_444),
        ("densenet121", 100, 32, 7_048_548),
        ("resnet50", 1000, 224, 25_557_032),  # this and the next: torchvision's documentation
        ("resnet101", 1000, 224, 44_549_160),
        ("resnext101_32x4d", 1000, 224, 44_177_704),  # timm's documentation: 44.2 M
    ],
)
def test_network_has_the_papers_number_of_parameters(name, classes, size, count):
    with torch.device("meta"):
        model = build_model(name, num_classes=classes, image_size=size)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model.backbone.stage_channels[-1] == model.backbone.feature_size


def test_resnet50_is_torchvisions_with_its_initialisation():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().state_dict()
    torch.manual_seed(0)
    ours = build_model("resnet50", 1000, 224).backbone.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert set(theirs) - set(ours) == {"fc.weight", "fc.bias"}


def test_networks_for_large_images_have_torchvisions_initialisation():
    densenet, resnet = build_model("densenet41", 5, 224), build_model("resnet10", 5, 224)
    assert not densenet.head.bias.any()
    assert resnet.head.bias.any()
    fan_out = resnet.backbone.layer2[0].conv1.weight  # 64 channels to 128
    assert fan_out.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "width", "message"),
    [
        (("resnet19", 10, 32), 64, "resnet18"),
        (("resnet18", 10, 4), 64, "image_size"),
        (("densenet41", 10, 32), 1, "width at least 2"),
        (("densenet41", 10, 65), 32, "width of 64 only"),
        (("resnet50", 10, 32), 64, "for images over 64 px, not 32 px"),
    ],
)
def test_build_model_raises_one_line_error_for_invalid_sizes(arguments, width, message):
    with pytest.raises(UserError, match=message):
        build_model(*arguments, width=width)


def test_narrow_shortcut_has_the_gradient_of_a_strided_convolution():
    """The expected gradient follows from the definition in float64, not from the library's faulty kernel."""
    model = build_model("resnet10", 3, 48, width=4).to(memory_format=torch.channels_last)
    shortcut = model.backbone.stages[1][0].shortcut
    images = torch.randn(4, 4, 48, 48).to(memory_format=torch.channels_last)
    out = shortcut(images)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected = torch.einsum("nohw,nihw->oi", gradient.double(), images[:, :, ::2, ::2].double())
    torch.testing.assert_close(shortcut.weight.grad[:, :, 0, 0].double(), expected, rtol=1e-3, atol=1e-3)
