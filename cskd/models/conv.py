"""The 3x3 convolution of the networks for small images, and its faster form for few pixels and many channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Intel's matrix unit. The oldest versions of torch that the library supports cannot tell.
HAS_AMX = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
MIN_CHANNELS = 256  # with fewer, both forms take about as long


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias; (N, C, H, W) to (N, outputs, ceil(H/stride), ceil(W/stride)).

    On a CPU with AMX, oneDNN's bf16 convolution is slow for few pixels and many channels: the last stage of ResNet-18.
    There, matrix products give the same values within rounding in about half the time (docs/speed.md).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self._as_products(x):
            return super().forward(x)
        return _Products.apply(x.bfloat16(), self.weight.bfloat16(), self.stride[0])

    def _as_products(self, x: Tensor) -> bool:
        """Return True if the products have fewer rows than inner elements: the shapes for which they are faster."""
        if not HAS_AMX or self.in_channels < MIN_CHANNELS or x.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return False
        images, channels, height, width = x.shape
        rows = images * _strided(height, self.stride[0]) * _strided(width, self.stride[0])
        return rows <= 9 * channels


class _Products(torch.autograd.Function):
    """A 3x3 convolution of bf16 tensors as one matrix product, and its gradients as two."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        columns = _columns(x, stride)
        ctx.save_for_backward(columns, weight)
        ctx.shape, ctx.stride = x.shape, stride
        images, _, height, width = x.shape
        out = columns @ weight.permute(2, 3, 1, 0).flatten(0, 2)
        return out.view(images, _strided(height, stride), _strided(width, stride), -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        columns, weight = ctx.saved_tensors
        outputs, channels = weight.shape[:2]
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
        weight_gradient = (rows.t() @ columns).view(outputs, 3, 3, channels).permute(0, 3, 1, 2)
        if ctx.stride == 1:
            # The transposed convolution: the gradient's patches times the weights turned by 180 degrees.
            turned = weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)
            images, _, height, width = ctx.shape
            x_gradient = (_columns(gradient, 1) @ turned).view(images, height, width, channels).permute(0, 3, 1, 2)
        else:
            x_gradient = torch.nn.grad.conv2d_input(ctx.shape, weight, gradient, stride=ctx.stride, padding=1)
        return x_gradient, weight_gradient, None


def _columns(x: Tensor, stride: int) -> Tensor:
    """Return the 3x3 patches of x (N, C, H, W) as rows: (N * out_height * out_width, 9 * C)."""
    images, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    image, row, column, _ = padded.stride()
    out_height, out_width = _strided(height, stride), _strided(width, stride)
    # The three pixels of a patch's row are neighbours in memory.
    patches = padded.as_strided(
        (images, out_height, out_width, 3, 3 * channels), (image, stride * row, stride * column, row, 1)
    )
    return patches.reshape(-1, 9 * channels)


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1
