"""Pre-activation ResNets for small images, as in the paper's released code."""

import torch.nn.functional as F
from torch import Tensor, nn

from cskd.models.classifier import Backbone
from cskd.models.conv import Conv3x3


class _Shortcut(nn.Conv2d):
    """A strided 1x1 convolution without bias."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= 16:
            return super().forward(x)
        # Below 16 channels, oneDNN's gradient of a strided 1x1 convolution writes out of bounds and crashes at 48 px
        # (oneDNN issue 6035, torch 2.15). Slicing first is equivalent.
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice. Unlike in He et al. 2016, identity shortcuts carry relu(bn1(x)), not x."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = Conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = Conv3x3(outputs, outputs)
        same_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same_shape else _Shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.conv1(active)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(active)


class PreActResNet(Backbone, nn.Module):
    """The released code's network for 32 px images, up to the pooled features.

    A 3x3 convolution to ``width`` channels with BN and ReLU; four stages of 1, 2, 4 and 8 times the width, of which the
    last three halve the image; average pooling. As in the released network, there is no BN or ReLU after the last
    stage, and weights have PyTorch's default initialisation. Images are (N, 3, H, W) with H and W of at least 8.
    """

    def __init__(self, blocks_per_stage: tuple[int, int, int, int], width: int):
        super().__init__()
        self.stage_channels = (width, 2 * width, 4 * width, 8 * width)
        self.feature_size = 8 * width
        self.conv1 = Conv3x3(3, width)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for number, (blocks, outputs) in enumerate(zip(blocks_per_stage, self.stage_channels, strict=True)):
            first = PreActBlock(inputs, outputs, stride=1 if number == 0 else 2)
            rest = [PreActBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def pool(self, feature_map: Tensor) -> Tensor:
        return F.avg_pool2d(feature_map, feature_map.shape[-2:]).flatten(1)
