"""A network as the methods see it: a backbone that gives features, and a head that gives logits."""

from collections.abc import Callable

from torch import Tensor, nn


class Classifier(nn.Module):
    """``head(backbone(x))``. The backbone gives pooled penultimate features (N, feature_size)."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, W), normalised. Returns logits (N, num_classes)."""
        return self.head(self.backbone(images))


HeadBuilder = Callable[[int, int], nn.Module]  # (feature size, number of classes) -> head
