"""The loss functions that several methods share: tensors in, a scalar out. Natural logarithms, means over the batch.

What one method alone uses stands in its file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """float32 at least: half-precision exponentials and logarithms would be too coarse for a loss."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of softmax(logits) against the targets, mean over the batch, in nats.

    logits: (N, C). targets: (N,) class indices, or (N, C) probabilities (mixed labels). smoothing: the part of
    each target that is spread evenly over all C classes, its own included.
    """
    return F.cross_entropy(precise(logits), targets, label_smoothing=smoothing)


def distillation_kl(logits: Tensor, target_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(P(.|target; T) || P(.|x; T)), mean over the batch.

    logits: (N, C), the predictions that learn. target_logits: (N, C); no gradient reaches them.
    temperature: T > 0. Returns a scalar in nats, zero where the two predictions agree. T^2 keeps the
    gradient's size as T grows. The weight is the caller's factor.

    Raises ValueError for a temperature that is not positive or for shapes that differ.
    Source: Hinton et al. 2015.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if logits.shape != target_logits.shape or logits.dim() != 2:
        raise ValueError(f"two (N, C) tensors are needed, not {tuple(logits.shape)} and {tuple(target_logits.shape)}")
    log_prediction = F.log_softmax(precise(logits) / temperature, dim=1)
    log_target = F.log_softmax(precise(target_logits.detach()) / temperature, dim=1)
    divergence = F.kl_div(log_prediction, log_target, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def class_wise_kl(logits: Tensor, partner_logits: Tensor, temperature: float) -> Tensor:
    """The class-wise regularisation of CS-KD: T^2 * KL(P(.|partner; T) || P(.|x; T)), mean over the batch.

    logits: (N, C). partner_logits: (N, C), the network's own predictions for another image of each one's
    class. See ``distillation_kl``; lambda_cls is the caller's factor. Source: Yun et al., CVPR 2020, equation 3.
    """
    return distillation_kl(logits, partner_logits, temperature)
