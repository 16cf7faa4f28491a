"""Virtual softmax: the training has one class more, in the direction of each image's own feature."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskd.losses import precise
from cskd.methods.base import ForwardCache, Method, Term


def virtual_softmax_cross_entropy(logits: Tensor, features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over C + 1 classes, mean over the batch, in nats.

    logits: (N, C) = features @ weight.T, without bias. features: (N, D). weight: (C, D). labels: (N,). The
    virtual class of an image has the weight ||w_y|| * f / ||f||, so its logit is ||w_y|| * ||f||: as large as
    the true class's could be. Gradient flows through all of it. Source: Chen, Deng, Hu, NeurIPS 2018, equation 3.
    """
    virtual = precise(weight)[labels].norm(dim=1) * precise(features).norm(dim=1)
    return F.cross_entropy(torch.cat([precise(logits), virtual[:, None]], dim=1), labels)


@dataclass(frozen=True)
class VirtualSoftmax(Method):
    """CE over the classes and a virtual one; a head without bias. The test knows no virtual class."""

    name = "virtual-softmax"
    source = "Chen, Deng, Hu, NeurIPS 2018"
    requires_hard_labels = True

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return nn.Linear(feature_size, num_classes, bias=False)

    def classification(self) -> Term:
        def over_one_more(passes: ForwardCache):
            return virtual_softmax_cross_entropy(
                passes.logits("x"), passes.features("x"), passes.model.head.weight, passes.batch.labels
            )

        return Term("virtual_cross_entropy", over_one_more)
