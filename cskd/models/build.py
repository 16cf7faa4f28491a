"""The registry of architectures, and the function that builds a network."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from cskd.models.classifier import AuxiliaryBuilder, Backbone, Classifier, HeadBuilder
from cskd.models.densenet import DenseNet
from cskd.models.external import LIBRARIES, build_backbone, check_external, is_external
from cskd.models.preact_resnet import PreActResNet
from cskd.utils.errors import UserError, did_you_mean

# Images up to this side get the network for small images (3x3 stem, no max-pooling). The paper uses 32 and 224 px.
SMALL_IMAGE = 64


Depths = tuple[int, ...]  # the number of blocks (ResNet) or layers (DenseNet) in each stage


class Family(NamedTuple):
    """The networks of one kind."""

    small: Callable[[Depths, int], Backbone] | None  # (depths, width) -> the network for small images, if there is one
    large: Callable[[Depths], Backbone]  # depths -> the network for large images
    min_width: int = 1
    zero_bias: bool = False  # torchvision initialises the bias of the head of large networks with zeros


def _torchvision(name: str) -> Callable[[Depths], Backbone]:
    def build(depths: Depths) -> Backbone:
        from cskd.models import torchvision_nets  # noqa: PLC0415 - slow import

        return getattr(torchvision_nets, name)(depths)

    return build


RESNET = Family(PreActResNet, _torchvision("TorchvisionResNet"))
# The growth is half of the width.
DENSENET = Family(DenseNet, _torchvision("TorchvisionDenseNet"), min_width=2, zero_bias=True)
BOTTLENECK = Family(None, _torchvision("bottleneck_resnet"))
RESNEXT_32X4D = Family(None, _torchvision("resnext_32x4d"))

ARCHITECTURES = {
    "resnet10": (RESNET, (1, 1, 1, 1)),
    "resnet18": (RESNET, (2, 2, 2, 2)),
    "densenet41": (DENSENET, (2, 4, 7, 5)),
    "densenet121": (DENSENET, (6, 12, 24, 16)),
    "resnet50": (BOTTLENECK, (3, 4, 6, 3)),
    "resnet101": (BOTTLENECK, (3, 4, 23, 3)),
    "resnext101_32x4d": (RESNEXT_32X4D, (3, 4, 23, 3)),
}


def check_architecture(name: str) -> None:
    """Raise UserError unless ``build_model`` knows the name."""
    if is_external(name):
        check_external(name)
    elif name not in ARCHITECTURES:
        choices = [*ARCHITECTURES, *(f"{library}:<network>" for library in LIBRARIES)]
        raise UserError(f"unknown architecture {name!r}: {did_you_mean(name, choices)}choose from {', '.join(choices)}")


def _no_auxiliary(stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> None:
    return None


def build_model(
    name: str,
    num_classes: int,
    image_size: int,
    *,
    width: int = 64,
    build_head: HeadBuilder = nn.Linear,
    build_auxiliary: AuxiliaryBuilder = _no_auxiliary,
) -> Classifier:
    """Return a newly initialised network. Weights are drawn from torch's global generator.

    The network computes the same function as the paper's released network, and has the same initialisation.

    Args:
        name: a key of ARCHITECTURES, or a network of torchvision or timm, such as ``torchvision:convnext_tiny``.
        num_classes: C >= 1.
        image_size: side of the square images in pixels. Up to 64: the paper's network for 32 px (with 100 classes,
            11.2 M parameters for resnet18 and 7.0 M for densenet121). Above: torchvision's network. A network of
            torchvision or timm is the same for all sizes; the networks of table 5 are only for larger images.
        width: channels of the stem, 64 in the paper. A DenseNet's growth is half of it. Without effect on a network of
            torchvision or timm.
        build_head: called with (feature size, C); a method's ``build_head``.
        build_auxiliary: called with (stage channels, feature size, C); a method's ``build_auxiliary``. Its weights
            are drawn last, so that all others are the same as without it.

    Raises UserError for an unknown name, and for sizes without a network.
    """
    check_architecture(name)
    if is_external(name):
        backbone = build_backbone(name)
        head = build_head(backbone.feature_size, num_classes)
        return Classifier(backbone, head, build_auxiliary(backbone.stage_channels, backbone.feature_size, num_classes))
    family, depths = ARCHITECTURES[name]
    if num_classes < 1 or width < family.min_width:
        limits = f"num_classes must be at least 1 and width at least {family.min_width}"
        raise UserError(f"{name}: {limits}, not {num_classes} and {width}")
    if image_size < 8:
        raise UserError(f"{name}: image_size must be at least 8 px, not {image_size}")
    small = image_size <= SMALL_IMAGE
    if small and family.small is None:
        raise UserError(f"{name}: it is for images over {SMALL_IMAGE} px, not {image_size} px: choose another network")
    if not small and width != 64:  # torchvision's ResNet has a fixed stem
        raise UserError(f"{name}: networks for images over {SMALL_IMAGE} px have a width of 64 only, not {width}")
    backbone = family.small(depths, width) if small else family.large(depths)
    head = build_head(backbone.feature_size, num_classes)
    if not small and family.zero_bias and isinstance(head, nn.Linear) and head.bias is not None:
        nn.init.zeros_(head.bias)
    return Classifier(backbone, head, build_auxiliary(backbone.stage_channels, backbone.feature_size, num_classes))
