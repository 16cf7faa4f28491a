"""DenseNets for small images, as in the paper's released code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskd.models.classifier import Backbone


class DenseLayer(nn.Module):
    """BN-ReLU-conv 1x1 to 4 * growth channels, then BN-ReLU-conv 3x3 to growth; they precede the input's channels."""

    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.bn1(x)))
        new = self.conv2(F.relu(self.bn2(new)))
        return torch.cat([new, x], dim=1)


class Transition(nn.Module):
    """BN-ReLU-conv 1x1 to half the channels, then average pooling 2x2."""

    def __init__(self, inputs: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(Backbone, nn.Module):
    """The released code's DenseNet for 32 px images, up to the pooled features.

    A 3x3 convolution to ``width`` channels; four stages of dense layers that add ``width // 2`` channels each; BN,
    ReLU, average pooling. A transition before each of the last three stages halves the channels and the image. Weights
    have PyTorch's default initialisation. Images are (N, 3, H, W) with H and W of at least 8.
    """

    def __init__(self, layers_per_stage: tuple[int, int, int, int], width: int):
        super().__init__()
        growth = width // 2
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        stages, stage_channels, channels = [], [], width
        for number, layers in enumerate(layers_per_stage):
            stage = nn.Sequential()
            if number > 0:
                stage.append(Transition(channels))
                channels //= 2
            for _ in range(layers):
                stage.append(DenseLayer(channels, growth))
                channels += growth
            stages.append(stage)
            stage_channels.append(channels)
        self.stages = nn.ModuleList(stages)
        self.bn = nn.BatchNorm2d(channels)
        self.stage_channels = tuple(stage_channels)
        self.feature_size = channels

    def stem(self, images: Tensor) -> Tensor:
        return self.conv1(images)

    def pool(self, feature_map: Tensor) -> Tensor:
        active = F.relu(self.bn(feature_map))
        return F.avg_pool2d(active, active.shape[-2:]).flatten(1)
