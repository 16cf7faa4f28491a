"""A network as the methods see it: a backbone that gives features, and a head that gives logits."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn


class Backbone(Protocol):
    """What every backbone offers besides being an nn.Module: its features in one go, or stage by stage.

    feature_size: the length of the pooled penultimate features. stage_channels: C_1 to C_4, the channels of
    the feature map after each of the four stages.
    """

    feature_size: int
    stage_channels: tuple[int, int, int, int]

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: (N, 3, H, W). Returns the feature map (N, C_i, H_i, W_i) after each stage, from first to last.

        A DenseNet's are the maps after its dense blocks, before BN and ReLU.
        """
        ...

    def pool(self, feature_map: Tensor) -> Tensor:
        """The last stage's map to features (N, feature_size), by all that stands between the two: a DenseNet has
        BN and ReLU there."""
        ...

    def forward(self, images: Tensor) -> Tensor:
        """``pool(stage_maps(images)[-1])``."""
        ...


class Classifier(nn.Module):
    """``head(backbone(x))``. Backbone and head are both an nn.Module; between them go features (N, feature_size).

    auxiliary: layers on the stage maps that only a method's training uses; None for most.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, auxiliary: nn.Module | None = None):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, W), normalised. Returns logits (N, num_classes)."""
        return self.head(self.backbone(images))


HeadBuilder = Callable[[int, int], nn.Module]  # (feature size, number of classes) -> head
# (channels of each stage, feature size, number of classes) -> layers on the stage maps, or none
AuxiliaryBuilder = Callable[[tuple[int, ...], int, int], nn.Module | None]
