"""The catalogue of architectures, and the one function that builds them."""

from dataclasses import dataclass

from torch import nn

from cskd.errors import UserError
from cskd.models.classifier import Classifier, HeadBuilder
from cskd.models.preact_resnet import PreActResNet

# Up to this size images get the small-image network: a 3x3 stem and no max-pool. The paper has 32 and 224.
SMALL_IMAGE = 64


@dataclass(frozen=True)
class _ResNet:
    """One ResNet in its two shapes."""

    blocks: tuple[int, int, int, int]

    def small(self, width: int) -> nn.Module:
        return PreActResNet(self.blocks, width)

    def large(self, width: int) -> nn.Module:
        import torchvision  # noqa: PLC0415 - its import takes seconds that small images do not need

        # torchvision's network; it fixes its stem at 64 channels
        if width != 64:
            raise UserError(f"width {width}: networks for images over {SMALL_IMAGE} px have a width of 64 only")
        network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, list(self.blocks))
        network.feature_size = network.fc.in_features
        network.fc = nn.Identity()
        return network


ARCHITECTURES = {
    "resnet10": _ResNet((1, 1, 1, 1)),
    "resnet18": _ResNet((2, 2, 2, 2)),
}


def build_model(
    name: str,
    num_classes: int,
    image_size: int,
    *,
    width: int = 64,
    build_head: HeadBuilder = nn.Linear,
) -> Classifier:
    """A freshly initialised network, drawn from torch's global generator.

    name: a key of ARCHITECTURES. num_classes: C >= 1. image_size: the side of the square images in pixels;
    up to 64 it is the paper's pre-activation network for 32 px (11.2 M parameters for resnet18 and 100
    classes), above torchvision's. width: channels of the stem, 64 in the paper. build_head: takes (feature
    size, C), for methods with a head of their own.

    In training and in evaluation mode it computes what the released network computes from the same weights.
    Raises UserError for an unknown name and for sizes without a network.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"unknown architecture {name!r}: choose from {', '.join(ARCHITECTURES)}")
    if num_classes < 1 or width < 1:
        raise UserError(f"{name}: num_classes and width must be at least 1, not {num_classes} and {width}")
    if image_size < 8:
        raise UserError(f"{name}: image_size must be at least 8 px, not {image_size}")
    architecture = ARCHITECTURES[name]
    backbone = architecture.small(width) if image_size <= SMALL_IMAGE else architecture.large(width)
    return Classifier(backbone, build_head(backbone.feature_size, num_classes))
