"""AdaCos: cross-entropy on cosines whose scale follows the training."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskd.losses import precise
from cskd.methods.base import ForwardCache, Method, Term
from cskd.utils.errors import UserError


def adaptive_scale(cosines: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """The scale for this batch from that of the one before.

    cosines: (N, C) between features and class weights. labels: (N,). scale: (), the previous one. Returns ().
    log(B) / cos(min(pi/4, median angle to the true class)), where B is the mean over the batch of the sum of
    exp(scale * cosine) over the wrong classes. Source: Zhang et al., CVPR 2019, equations 10 and 11.
    """
    own = cosines.gather(1, labels[:, None])
    wrong = torch.exp(scale * cosines).sum(dim=1) - torch.exp(scale * own[:, 0])
    angle = torch.arccos(own.clamp(-1, 1)).median()
    return torch.log(wrong.mean()) / torch.cos(angle.clamp(max=math.pi / 4))


class CosineHead(nn.Module):
    """Cosines (N, C) of features (N, D) and class weights: unscaled, as the test sees them.

    ``scale`` is what the training multiplies them by; it begins at sqrt(2) * log(C - 1) and is kept with the
    weights.
    """

    def __init__(self, feature_size: int, num_classes: int):
        super().__init__()
        if num_classes < 3:
            raise UserError(f"adacos needs 3 classes or more, not {num_classes}: its first scale is log(C - 1)")
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, feature_size)))
        self.register_buffer("scale", torch.tensor(math.sqrt(2) * math.log(num_classes - 1)))

    def forward(self, features: Tensor) -> Tensor:
        # Not in half precision: what is left of a cosine after rounding is multiplied by the scale.
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(precise(features)) @ F.normalize(precise(self.weight)).T


@dataclass(frozen=True)
class AdaCos(Method):
    """CE(s * cosines, y), where the scale s is set anew from each batch before it is used.

    Tested on softmax over the unscaled cosines: that is what the ECE in table 6 of Yun et al. shows. Probabilities
    are near uniform then, and the ECE is near the accuracy.
    """

    name = "adacos"
    source = "Zhang et al., CVPR 2019, the dynamic scale"
    incompatible_logits = True

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return CosineHead(feature_size, num_classes)

    def classification(self) -> Term:
        def scaled_cross_entropy(passes: ForwardCache):
            cosines, head, labels = passes.logits("x"), passes.model.head, passes.batch.labels
            if head.training:
                head.scale.copy_(adaptive_scale(cosines.detach(), labels, head.scale))
            return F.cross_entropy(head.scale * cosines, labels)

        return Term("scaled_cross_entropy", scaled_cross_entropy)
