"""The 3x3 convolution as matrix products against PyTorch's convolution."""

import runpy

import pytest
import torch
import torch.nn.functional as F

from cskd.models import conv
from cskd.models.conv import Conv3x3, _Products
from cskd.models.preact_resnet import PreActResNet


@pytest.mark.parametrize(("height", "width", "stride"), [(4, 4, 1), (5, 7, 2), (8, 8, 2), (6, 2, 1), (1, 1, 1)])
def test_products_have_the_values_and_gradients_of_the_convolution(height, width, stride):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    expected = F.conv2d(x, weight, stride=stride, padding=1)
    gradient = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    found = _Products.apply(x, weight, stride)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight), gradient),
        torch.autograd.grad(expected, (x, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_network_with_products_is_the_same_within_bf16_rounding(monkeypatch):
    torch.manual_seed(0)
    network = PreActResNet((1, 1, 1, 1), width=64).to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 16, 16)

    def features_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network.stem(images)
            for stage in network.stages:
                out = stage(out)
            features = network.pool(out)
        features.float().square().mean().backward()
        return features.float().detach(), network.stages[3][0].conv2.weight.grad.clone()

    used = []
    monkeypatch.setattr(_Products, "apply", lambda *args, apply=_Products.apply: used.append(1) or apply(*args))
    monkeypatch.setattr(conv, "HAS_AMX", False)
    reference = features_and_gradient()
    assert not used
    monkeypatch.setattr(conv, "HAS_AMX", True)
    found = features_and_gradient()
    assert len(used) == 3  # those with 256 and 512 channels
    for ours, theirs in zip(found, reference, strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_versions_of_torch_that_cannot_tell_amx_have_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert runpy.run_path(conv.__file__)["HAS_AMX"] is False


@pytest.mark.parametrize(("channels", "pixels", "autocast"), [(128, 4, True), (256, 16, True), (256, 4, False)])
def test_convolution_stays_elsewhere(monkeypatch, channels, pixels, autocast):
    monkeypatch.setattr(conv, "HAS_AMX", True)
    monkeypatch.setattr(_Products, "apply", None)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert Conv3x3(channels, 8)(torch.zeros(16, channels, pixels, pixels)).shape == (16, 8, pixels, pixels)
