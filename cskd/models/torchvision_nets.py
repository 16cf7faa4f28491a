"""torchvision's networks for larger images, up to the pooled features.

Importing torchvision's models takes seconds, so this module is imported only when such a network is built.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import DenseNet, ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from cskd.models.classifier import Backbone


class TorchvisionResNet(Backbone, ResNet):
    """A ResNet with Kaiming fan-out initialisation.

    Args:
        block: of basic blocks, or of bottlenecks.
        groups, width_per_group: of the 3x3 convolutions of bottlenecks; more than one group makes a ResNeXt.
    """

    def __init__(
        self,
        blocks_per_stage: tuple[int, int, int, int],
        block: type[BasicBlock | Bottleneck] = BasicBlock,
        groups: int = 1,
        width_per_group: int = 64,
    ):
        super().__init__(block, list(blocks_per_stage), groups=groups, width_per_group=width_per_group)
        self.feature_size = self.fc.in_features
        self.stage_channels = tuple(self.feature_size // part for part in (8, 4, 2, 1))
        del self.fc  # the head is a separate module

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def stem(self, images: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))

    def pool(self, feature_map: Tensor) -> Tensor:
        return self.avgpool(feature_map).flatten(1)


def bottleneck_resnet(blocks_per_stage: tuple[int, int, int, int]) -> TorchvisionResNet:
    """Return torchvision's resnet50, resnet101, ..."""
    return TorchvisionResNet(blocks_per_stage, Bottleneck)


def resnext_32x4d(blocks_per_stage: tuple[int, int, int, int]) -> TorchvisionResNet:
    """Return a ResNeXt of 32 groups with 4 channels each in the first stage (Xie et al., 2017)."""
    return TorchvisionResNet(blocks_per_stage, Bottleneck, groups=32, width_per_group=4)


class TorchvisionDenseNet(Backbone, DenseNet):
    """A DenseNet of growth 32 with a 7x7 stem of 64 channels and Kaiming fan-in initialisation."""

    def __init__(self, layers_per_stage: tuple[int, int, int, int]):
        super().__init__(growth_rate=32, block_config=layers_per_stage, num_init_features=64)
        self.feature_size = self.classifier.in_features
        del self.classifier  # the head is a separate module
        transitions = (self.features.transition1, self.features.transition2, self.features.transition3)
        self.stage_channels = (*(transition.norm.num_features for transition in transitions), self.feature_size)

    def stage_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        maps, out = [], images
        for name, layer in self.features.named_children():
            if name == "norm5":  # applied by ``pool``
                break
            out = layer(out)
            if name.startswith("denseblock"):
                maps.append(out)
        return tuple(maps)

    def pool(self, feature_map: Tensor) -> Tensor:
        active = F.relu(self.features.norm5(feature_map))
        return F.adaptive_avg_pool2d(active, 1).flatten(1)
