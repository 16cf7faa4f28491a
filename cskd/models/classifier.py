"""A network in two parts: a backbone that computes features, and a head that computes logits."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Backbone:
    """Base class of the backbones, beside nn.Module: the forward pass is available stage by stage.

    A subclass has ``stem`` and ``stages``, or its own ``stage_maps``.

    feature_size: the length of the pooled features.
    stage_channels: C_1 to C_4, the channels of the feature map after each of the four stages; () if the network has no
        such stages.
    """

    feature_size: int
    stage_channels: tuple[int, ...]
    stages: Sequence[nn.Module]

    def stem(self, images: Tensor) -> Tensor:
        """Return the input of the first stage, for images (N, 3, H, W)."""
        raise NotImplementedError

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature map (N, C_i, H_i, W_i) after each stage, for images (N, 3, H, W).

        The maps of a DenseNet are those after its dense blocks, before BN and ReLU. A network without stages returns
        what ``pool`` takes, as the only map.
        """
        maps, out = [], self.stem(images)
        for stage in self.stages:
            out = stage(out)
            maps.append(out)
        return tuple(maps)

    def pool(self, feature_map: Tensor) -> Tensor:
        """Return the features (N, feature_size) for the last stage's map. A DenseNet applies BN and ReLU first."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (N, feature_size)."""
        return self.pool(self.stage_maps(images)[-1])


class Classifier(nn.Module):
    """``head(backbone(x))``. ``auxiliary``: layers on the stage maps that only a method's training uses, or None."""

    def __init__(self, backbone: Backbone, head: nn.Module, auxiliary: nn.Module | None = None):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for normalised images (N, 3, H, W)."""
        return self.head(self.backbone(images))


HeadBuilder = Callable[[int, int], nn.Module]  # (feature size, number of classes) -> head
# (channels of each stage, feature size, number of classes) -> layers on the stage maps, or None
AuxiliaryBuilder = Callable[[tuple[int, ...], int, int], nn.Module | None]
