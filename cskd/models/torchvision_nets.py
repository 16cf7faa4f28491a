"""torchvision's networks for larger images, up to the pooled features.

The only file that imports torchvision's models, which takes seconds: import it where such a network is built.
"""

from torch import Tensor
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock


class TorchvisionResNet(ResNet):
    """Basic blocks, Kaiming fan-out initialisation. Takes (N, 3, H, W), returns (N, 512)."""

    stage_channels = (64, 128, 256, 512)

    def __init__(self, blocks_per_stage: tuple[int, int, int, int]):
        super().__init__(BasicBlock, list(blocks_per_stage))
        self.feature_size = self.fc.in_features
        del self.fc  # the head is the classifier's

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps (N, C_i, H_i, W_i) after the four stages."""
        maps, out = [], self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)
            maps.append(out)
        return tuple(maps)

    def pool(self, feature_map: Tensor) -> Tensor:
        """The last stage's map to features (N, feature_size): average pooling."""
        return self.avgpool(feature_map).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.stage_maps(images)[-1])
