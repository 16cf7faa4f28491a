"""The catalogue of architectures, and the one function that builds them."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cskd.models.classifier import AuxiliaryBuilder, Classifier, HeadBuilder
from cskd.models.densenet import DenseNet
from cskd.models.preact_resnet import PreActResNet
from cskd.utils.errors import UserError

# Up to this size images get the small-image network: a 3x3 stem and no max-pool. The paper has 32 and 224.
SMALL_IMAGE = 64


@dataclass(frozen=True)
class _ResNet:
    """One ResNet in its two shapes."""

    blocks: tuple[int, int, int, int]
    narrowest: ClassVar[int] = 1
    zero_bias: ClassVar[bool] = False  # whether torchvision starts the head's bias at zero

    def small(self, width: int) -> nn.Module:
        return PreActResNet(self.blocks, width)

    def large(self) -> nn.Module:
        from cskd.models.torchvision_nets import TorchvisionResNet  # noqa: PLC0415 - small images do not need it

        return TorchvisionResNet(self.blocks)


@dataclass(frozen=True)
class _DenseNet:
    """One DenseNet in its two shapes."""

    layers: tuple[int, int, int, int]
    narrowest: ClassVar[int] = 2  # it grows by half of its width
    zero_bias: ClassVar[bool] = True

    def small(self, width: int) -> nn.Module:
        return DenseNet(self.layers, width)

    def large(self) -> nn.Module:
        from cskd.models.torchvision_nets import TorchvisionDenseNet  # noqa: PLC0415 - small images do not need it

        return TorchvisionDenseNet(self.layers)


ARCHITECTURES = {
    "resnet10": _ResNet((1, 1, 1, 1)),
    "resnet18": _ResNet((2, 2, 2, 2)),
    "densenet41": _DenseNet((2, 4, 7, 5)),
    "densenet121": _DenseNet((6, 12, 24, 16)),
}


def build_model(
    name: str,
    num_classes: int,
    image_size: int,
    *,
    width: int = 64,
    build_head: HeadBuilder = nn.Linear,
    build_auxiliary: AuxiliaryBuilder = lambda stage_channels, feature_size, num_classes: None,
) -> Classifier:
    """A freshly initialised network, drawn from torch's global generator.

    name: a key of ARCHITECTURES. num_classes: C >= 1. image_size: the side of the square images in pixels;
    up to 64 it is the paper's network for 32 px (for 100 classes 11.2 M parameters with resnet18, 7.0 M with
    densenet121), above torchvision's. width: channels of the stem, 64 in the paper; a DenseNet grows by half
    of it. build_head: takes (feature size, C), for methods with a head of their own. build_auxiliary: takes (stage
    channels, feature size, C), for methods that train layers on the earlier stages; drawn last, so that the rest
    starts as without them.

    In training and in evaluation mode it computes what the released network computes from the same weights,
    and starts as that does. The model's backbone is a ``cskd.models.classifier.Backbone``.
    Raises UserError for an unknown name and for sizes without a network.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"unknown architecture {name!r}: choose from {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    if num_classes < 1 or width < architecture.narrowest:
        least = f"num_classes must be at least 1 and width at least {architecture.narrowest}"
        raise UserError(f"{name}: {least}, not {num_classes} and {width}")
    if image_size < 8:
        raise UserError(f"{name}: image_size must be at least 8 px, not {image_size}")
    small = image_size <= SMALL_IMAGE
    if not small and width != 64:  # torchvision's ResNet fixes its stem at that
        raise UserError(f"{name}: networks for images over {SMALL_IMAGE} px have a width of 64 only, not {width}")
    backbone = architecture.small(width) if small else architecture.large()
    head = build_head(backbone.feature_size, num_classes)
    if not small and architecture.zero_bias and isinstance(head, nn.Linear) and head.bias is not None:
        nn.init.zeros_(head.bias)
    return Classifier(backbone, head, build_auxiliary(backbone.stage_channels, backbone.feature_size, num_classes))
