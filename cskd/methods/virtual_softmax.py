"""Virtual softmax: training with an additional class, whose weight points along each image's own features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskd.losses import at_least_float32
from cskd.methods.base import ForwardCache, Method, Term


def virtual_softmax_cross_entropy(logits: Tensor, features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy over C + 1 classes, mean over the batch, in nats.

    Args:
        logits: (N, C), features @ weight.T without bias.
        features: (N, D).
        weight: (C, D).
        labels: (N,).

    The virtual class of an image has the weight ||w_y|| * f / ||f||, so its logit is ||w_y|| * ||f||, the largest
    value that the true class's logit can reach. Gradient flows through all inputs.
    Source: Chen, Deng, Hu, NeurIPS 2018, equation 3.
    """
    virtual = at_least_float32(weight)[labels].norm(dim=1) * at_least_float32(features).norm(dim=1)
    return F.cross_entropy(torch.cat([at_least_float32(logits), virtual[:, None]], dim=1), labels)


@dataclass(frozen=True)
class VirtualSoftmax(Method):
    """CE over the classes and a virtual one, with a head without bias. Evaluation uses the real classes only."""

    name = "virtual-softmax"
    source = "Chen, Deng, Hu, NeurIPS 2018"
    requires_hard_labels = True

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return nn.Linear(feature_size, num_classes, bias=False)

    def classification(self) -> Term:
        return Term("virtual_cross_entropy", self.virtual_cross_entropy)

    def virtual_cross_entropy(self, cache: ForwardCache) -> Tensor:
        weight = cache.model.head.weight
        return virtual_softmax_cross_entropy(cache.logits("x"), cache.features("x"), weight, cache.batch.labels)
