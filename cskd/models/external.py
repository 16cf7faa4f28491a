"""The networks of torchvision and timm, by name: ``torchvision:resnet50``, ``timm:convnext_tiny``.

Both libraries take seconds to import, so they are imported only when such a network is used. timm is optional.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

from cskd.models.classifier import Backbone
from cskd.utils.errors import UserError, check_choice, did_you_mean

LIBRARIES = ("torchvision", "timm")
STAGE_REDUCTIONS = [4, 8, 16, 32]  # of a network with stage maps: each stage halves the map


def is_external(name: str) -> bool:
    return ":" in name


def check_external(name: str) -> None:
    """Raise UserError unless the library is installed and has the network."""
    library, network = _library_of(name)
    networks = _networks(library)
    if network not in networks:  # too many to list
        title = library.__name__.partition(".")[0]
        listing = f"{library.__name__}.list_models() lists all {len(networks)}"
        raise UserError(f"unknown {title} network {network!r}: {did_you_mean(network, networks)}{listing}")


def build_backbone(name: str, weights: str | None = None) -> Backbone:
    """Return a network without its head. Weights are drawn from torch's global generator.

    weights: a named set of pretrained weights: "default", or a set of this network in its library, such as
        ``IMAGENET1K_V1`` (torchvision) or ``fb_in22k`` (timm). The library downloads it once.

    Raises:
        UserError: for a network without a linear head, or with a second head.
        Exception: of the library, for weights that it does not have or cannot download.
    """
    library, network = _library_of(name)
    if library.__name__ == "timm":
        tagged = network if weights in (None, "default") else f"{network}.{weights}"
        return TimmBackbone(library.create_model(tagged, pretrained=weights is not None, num_classes=0))
    chosen = "DEFAULT" if weights == "default" else weights
    with torch.device("cpu"):  # a RegNet computes its widths with tensors, which have no values on the device meta
        made = library.get_model(network, weights=chosen)
    return TorchvisionBackbone(name, made.to(torch.get_default_device()))


def _library_of(name: str) -> tuple[ModuleType, str]:
    """Return (the library's module of models, the network's name there)."""
    prefix, _, network = name.partition(":")
    check_choice("library of networks", prefix, LIBRARIES)
    try:
        return importlib.import_module("timm" if prefix == "timm" else "torchvision.models"), network
    except ModuleNotFoundError as error:
        raise UserError(f"{name}: {prefix} is not installed: pip install {prefix}") from error


def _networks(library: ModuleType) -> list[str]:
    return library.list_models() if library.__name__ == "timm" else library.list_models(module=library)


class TorchvisionBackbone(Backbone, nn.Module):
    """A network of torchvision. ResNets and ResNeXts have stage maps."""

    stage_channels = ()

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.network = network
        linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear or getattr(network, "aux_logits", False):
            raise UserError(f"{name}: it has no single linear head: choose another network")
        head = network.get_submodule(linear[-1])
        self.feature_size = head.in_features
        network.set_submodule(linear[-1], nn.Identity())
        if all(hasattr(network, f"layer{number}") for number in range(1, 5)):
            self.stage_channels = tuple(self.feature_size // part for part in (8, 4, 2, 1))

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        network = self.network
        return network.layer1, network.layer2, network.layer3, network.layer4

    def stem(self, images: Tensor) -> Tensor:
        network = self.network
        return network.maxpool(network.relu(network.bn1(network.conv1(images))))

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().stage_maps(images) if self.stage_channels else (self.network(images),)

    def pool(self, feature_map: Tensor) -> Tensor:
        return self.network.avgpool(feature_map).flatten(1) if self.stage_channels else feature_map


class TimmBackbone(Backbone, nn.Module):
    """A network of timm, made with ``num_classes=0``. It has stage maps if four stages halve the map, from 1/4 on."""

    stage_channels = ()

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.feature_size = network.head_hidden_size  # some heads have a layer before the classes
        stages = list(getattr(network, "feature_info", None) or [])[-4:]
        if [stage["reduction"] for stage in stages] == STAGE_REDUCTIONS:
            self.stage_channels = (*(stage["num_chs"] for stage in stages[:-1]), network.num_features)

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        if not self.stage_channels:
            return (self.network(images),)
        last, maps = self.network.forward_intermediates(images, indices=4)
        return (*maps[:-1], last)

    def pool(self, feature_map: Tensor) -> Tensor:
        return self.network.forward_head(feature_map) if self.stage_channels else feature_map
