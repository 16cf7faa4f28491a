"""The networks against the paper's released networks."""

import math

import pytest
import torch

from cskd.models import ARCHITECTURES, build_model
from cskd.utils.errors import UserError

# Logits in float64 of the paper's released networks (CIFAR_ResNet18, CIFAR_DenseNet121, resnet10, densenet121) for five
# classes: the first two of four images, in training (True) and then in evaluation mode (False) on the same network.
# `fill` and `images` make the weights and the images.
RELEASED = {
    ("resnet18", 32, True): [
        [1.365722775, 1.756646887, 2.101915736, 2.351664667, 2.472876338],
        [1.366930642, 1.758794579, 2.104860606, 2.355211119, 2.47678882],
    ],
    ("resnet18", 32, False): [
        [3573.352922475, 3779.289201039, 3734.279806662, 3441.287287063, 2919.755489574],
        [3675.67240283, 3893.058918793, 3851.943288432, 3555.02943947, 3022.021670098],
    ],
    ("resnet10", 224, True): [
        [-1.222437984, -0.668577005, 0.036171412, 0.838884291, 1.664165719],
        [-1.261988761, -0.697239131, 0.020301647, 0.836860942, 1.676123174],
    ],
    ("resnet10", 224, False): [
        [27.313515058, 70.187366772, 108.505923438, 139.717989725, 161.728410207],
        [34.276868266, 84.818163554, 129.832400582, 166.323663477, 191.846157738],
    ],
    ("densenet121", 32, True): [
        [-0.44204307, 0.630512634, 1.815530835, 2.790940427, 3.287805977],
        [-0.440401523, 0.632639139, 1.817586719, 2.792388559, 3.288268012],
    ],
    ("densenet121", 32, False): [
        [2.542421988, 5.733087766, 7.703093784, 7.925279406, 6.327499959],
        [2.534687526, 5.713223375, 7.676289326, 7.898537937, 6.307808079],
    ],
    ("densenet121", 224, True): [
        [-0.160676076, 0.893339799, 1.992723433, 2.853495069, 3.244256066],
        [-0.002593717, 1.156842385, 2.292802348, 3.111750314, 3.393214688],
    ],
    ("densenet121", 224, False): [
        [3.524148228, 6.903195429, 8.757447853, 8.60570525, 6.481103108],
        [3.555483652, 6.970620577, 8.84334692, 8.687635851, 6.537659677],
    ],
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


@pytest.mark.parametrize(("name", "size"), dict.fromkeys(key[:2] for key in RELEASED))
def test_network_computes_the_released_networks_logits(name, size):
    model = build_model(name, 5, size).double()
    fill(model)
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            logits = model(images(size))[:2]
        expected = torch.tensor(RELEASED[name, size, training], dtype=torch.float64)
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_217_444), ("densenet121", 7_048_548)])
def test_network_for_32_px_has_the_papers_number_of_parameters(name, count):
    with torch.device("meta"):
        model = build_model(name, num_classes=100, image_size=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("size", "width"), [(32, 6), (65, 64)])
def test_backbone_has_four_stages_and_gradient_for_every_parameter(name, size, width):
    model = build_model(name, 3, size, width=width)
    inputs = torch.randn(2, 3, size, size)
    backbone = model.backbone.eval()
    with torch.no_grad():
        maps, features = backbone.stage_maps(inputs), backbone(inputs)
        assert torch.equal(backbone.pool(maps[-1]), features)
    assert tuple(stage.shape[1] for stage in maps) == backbone.stage_channels
    sides = [stage.shape[2] for stage in maps]
    assert sides == sorted(set(sides), reverse=True)
    assert features.shape == (2, backbone.feature_size)
    model.train()(inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_networks_for_large_images_have_torchvisions_initialisation():
    densenet, resnet = build_model("densenet41", 5, 224), build_model("resnet10", 5, 224)
    assert not densenet.head.bias.any()
    assert resnet.head.bias.any()
    fan_in = densenet.backbone.features.denseblock1.denselayer1.conv2.weight
    fan_out = resnet.backbone.layer2[0].conv1.weight  # 64 channels to 128
    assert fan_in.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.05)
    assert fan_out.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.05)


def test_weight_names_are_stable():
    with torch.device("meta"):
        small, large = build_model("resnet10", 5, 32), build_model("resnet10", 5, 224)
    assert {"backbone.conv1.weight", "backbone.stages.3.0.shortcut.weight", "head.bias"} <= set(small.state_dict())
    assert {"backbone.conv1.weight", "backbone.layer4.0.downsample.0.weight", "head.bias"} <= set(large.state_dict())


@pytest.mark.parametrize(
    ("arguments", "width", "message"),
    [
        (("resnet19", 10, 32), 64, "resnet18"),
        (("resnet18", 0, 32), 64, "num_classes"),
        (("resnet18", 10, 4), 64, "image_size"),
        (("densenet41", 10, 32), 1, "width at least 2"),
        (("densenet41", 10, 65), 32, "width of 64 only"),
    ],
)
def test_build_model_raises_one_line_error_for_invalid_sizes(arguments, width, message):
    with pytest.raises(UserError, match=message) as caught:
        build_model(*arguments, width=width)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [4, 16])
def test_narrow_shortcut_has_the_gradient_of_a_strided_convolution(width):
    """The expected gradient follows from the definition in float64, not from the library's faulty kernel."""
    model = build_model("resnet10", 3, 48, width=width).to(memory_format=torch.channels_last)
    shortcut = model.backbone.stages[1][0].shortcut
    images = torch.randn(4, width, 48, 48).to(memory_format=torch.channels_last)
    out = shortcut(images)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected = torch.einsum("nohw,nihw->oi", gradient.double(), images[:, :, ::2, ::2].double())
    torch.testing.assert_close(shortcut.weight.grad[:, :, 0, 0].double(), expected, rtol=1e-3, atol=1e-3)
