"""AdaCos: cross-entropy on cosines with a scale that adapts during training."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskd.losses import at_least_float32
from cskd.methods.base import ForwardCache, Method, Term
from cskd.utils.errors import UserError


def adaptive_scale(cosines: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Return the scale for this batch: log(B) / cos(min(pi/4, median angle to the true class)).

    B is the mean over the batch of the sum of exp(scale * cosine) over the wrong classes.

    Args:
        cosines: (N, C), between features and class weights.
        labels: (N,).
        scale: (), the scale of the previous batch.

    Source: Zhang et al., CVPR 2019, equations 10 and 11.
    """
    true = cosines.gather(1, labels[:, None])
    wrong = (scale * cosines).scatter(1, labels[:, None], -math.inf)
    log_mean = wrong.flatten().logsumexp(0) - math.log(len(labels))
    angle = torch.arccos(true.clamp(-1, 1)).median()
    return log_mean / torch.cos(angle.clamp(max=math.pi / 4))


class CosineHead(nn.Module):
    """Cosines (N, C) between features (N, D) and class weights, not scaled.

    ``scale`` multiplies the cosines in training. It starts at sqrt(2) * log(C - 1) and is saved with the weights.
    """

    def __init__(self, feature_size: int, num_classes: int):
        super().__init__()
        if num_classes < 3:
            raise UserError(f"adacos needs 3 classes or more, not {num_classes}: its first scale is log(C - 1)")
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, feature_size)))
        self.register_buffer("scale", torch.tensor(math.sqrt(2) * math.log(num_classes - 1)))

    def forward(self, features: Tensor) -> Tensor:
        # Not in half precision: the scale multiplies the rounding error of a cosine.
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(at_least_float32(features)) @ F.normalize(at_least_float32(self.weight)).T


@dataclass(frozen=True)
class AdaCos(Method):
    """CE(s * cosines, y); each training batch updates the scale s before it is used.

    Evaluation uses the softmax of the unscaled cosines, which agrees with the ECE in table 6 of Yun et al.: the
    probabilities are nearly uniform, and the ECE is close to the accuracy.
    """

    name = "adacos"
    source = "Zhang et al., CVPR 2019, the dynamic scale"
    incompatible_logits = True

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return CosineHead(feature_size, num_classes)

    def classification(self) -> Term:
        return Term("scaled_cross_entropy", self.scaled_cross_entropy)

    def scaled_cross_entropy(self, cache: ForwardCache) -> Tensor:
        cosines, head, labels = cache.logits("x"), cache.model.head, cache.batch.labels
        if head.training:
            head.scale.copy_(adaptive_scale(cosines.detach(), labels, head.scale))
        return F.cross_entropy(head.scale * cosines, labels)
