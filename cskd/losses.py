"""The pure loss functions: tensors in, a scalar out. Natural logarithms, means over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _precise(logits: Tensor) -> Tensor:
    """float32 at least: half-precision exponentials and logarithms would be too coarse for a loss."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of softmax(logits) against the targets, mean over the batch, in nats.

    logits: (N, C). targets: (N,) class indices, or (N, C) probabilities (mixed labels).
    """
    return F.cross_entropy(_precise(logits), targets)


def class_wise_kl(logits: Tensor, partner_logits: Tensor, temperature: float) -> Tensor:
    """The class-wise regularisation of CS-KD: T^2 * KL(P(.|partner; T) || P(.|x; T)), mean over the batch.

    logits: (N, C), the predictions that learn. partner_logits: (N, C), the network's own predictions for
    another image of each one's class; they are the target, and no gradient reaches them. temperature: T > 0.
    Returns a scalar in nats, zero where the two predictions agree. T^2 keeps the gradient's size as T grows.
    lambda_cls is the caller's factor.

    Raises ValueError for a temperature that is not positive or for shapes that differ.
    Source: Yun et al., CVPR 2020, equation 3.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if logits.shape != partner_logits.shape or logits.dim() != 2:
        raise ValueError(f"two (N, C) tensors are needed, not {tuple(logits.shape)} and {tuple(partner_logits.shape)}")
    log_prediction = F.log_softmax(_precise(logits) / temperature, dim=1)
    log_target = F.log_softmax(_precise(partner_logits.detach()) / temperature, dim=1)
    divergence = F.kl_div(log_prediction, log_target, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
