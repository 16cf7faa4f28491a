"""Loss functions that several methods share, and CS-KD's as modules. Natural logarithms; means over the batch.

A loss that only one method uses is in that method's file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def at_least_float32(values: Tensor) -> Tensor:
    """Return float32 and float64 tensors unchanged, and others as float32: half precision is too coarse for a loss."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of softmax(logits) and the targets, in nats.

    Args:
        logits: (N, C).
        targets: (N,) class indices, or (N, C) probabilities (mixed labels).
        smoothing: the share of each target that is spread evenly over all C classes.
    """
    return F.cross_entropy(at_least_float32(logits), targets, label_smoothing=smoothing)


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is not positive."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")


def distillation_kl(logits: Tensor, target_logits: Tensor, temperature: float, detach: bool = True) -> Tensor:
    """Return T^2 * KL(P(.|target; T) || P(.|x; T)), in nats. The factor T^2 keeps the gradient's scale as T grows.

    Args:
        logits: (N, C), the predictions that are trained.
        target_logits: (N, C); they receive no gradient unless ``detach`` is False.
        temperature: T > 0.

    Raises ValueError for a temperature that is not positive, and for different shapes.
    Source: Hinton et al. 2015.
    """
    check_temperature(temperature)
    if logits.shape != target_logits.shape or logits.dim() != 2:
        raise ValueError(f"two (N, C) tensors are needed, not {tuple(logits.shape)} and {tuple(target_logits.shape)}")
    log_prediction = F.log_softmax(at_least_float32(logits) / temperature, dim=1)
    target_logits = target_logits.detach() if detach else target_logits
    log_target = F.log_softmax(at_least_float32(target_logits) / temperature, dim=1)
    divergence = F.kl_div(log_prediction, log_target, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def class_wise_kl(logits: Tensor, partner_logits: Tensor, temperature: float) -> Tensor:
    """Return the class-wise regularisation of CS-KD: T^2 * KL(P(.|partner; T) || P(.|x; T)), in nats.

    Args:
        logits: (N, C), the predictions that are trained.
        partner_logits: (N, C), the same network's predictions for other images of the same classes; they receive no
            gradient.
        temperature: T > 0.

    The weight lambda_cls is not included. Raises ValueError as ``distillation_kl``.
    Source: Yun et al., CVPR 2020, equation 3.
    """
    return distillation_kl(logits, partner_logits, temperature)


class ClassWiseKL(nn.Module):
    """``class_wise_kl`` as a module: ``loss(logits, partner_logits)``."""

    def __init__(self, temperature: float):
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"

    def forward(self, logits: Tensor, partner_logits: Tensor) -> Tensor:
        return class_wise_kl(logits, partner_logits, self.temperature)


class CSKDLoss(nn.Module):
    """The loss of CS-KD: ``loss(model, x, partner, y)`` = CE(x, y) + lambda_cls * class_wise_kl(x, partner).

    The network sees x, then the partner without gradient. As in the released code, it stays in its mode: in training
    mode, BatchNorm uses the statistics of each of the two batches, and records both.

    Args of a call:
        model: returns logits (N, C), or an object that has them as ``logits``.
        x: (N, ...), the input that is trained.
        partner: (N, ...), other inputs of the same classes.
        y: (N,) class indices, or (N, C) probabilities.

    Raises ValueError for a temperature that is not positive or a negative lambda_cls, and TypeError for a model whose
    output is neither, such as a tuple.
    """

    def __init__(self, temperature: float, lambda_cls: float):
        super().__init__()
        check_temperature(temperature)
        if not lambda_cls >= 0:
            raise ValueError(f"lambda_cls must be at least 0, not {lambda_cls}")
        self.temperature, self.lambda_cls = temperature, lambda_cls

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, lambda_cls={self.lambda_cls}"

    def forward(self, model: nn.Module, x: Tensor, partner: Tensor, y: Tensor) -> Tensor:
        logits = _logits(model(x))
        # A second pass through DDP would overwrite BatchNorm's buffers, which the backward pass of the first needs.
        network = model.module if isinstance(model, DistributedDataParallel) else model
        with torch.no_grad():
            target = _logits(network(partner))
        return cross_entropy(logits, y) + self.lambda_cls * class_wise_kl(logits, target, self.temperature)


def _logits(output) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        found = type(output).__name__
        raise TypeError(f"the model returned {found}; a tensor of logits (N, C) or an object with `.logits` is needed")
    return logits
