"""Label smoothing: a share of each target is spread evenly over all classes."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import cross_entropy
from cskd.methods.base import ForwardCache, Method, Term


@dataclass(frozen=True)
class LabelSmoothing(Method):
    """CE(x, (1 - epsilon) * y + epsilon / C)."""

    name = "label-smoothing"
    source = "Szegedy et al., CVPR 2016, section 7: epsilon 0.1"

    epsilon: float = 0.1

    def __post_init__(self):
        self.require("epsilon", 0 <= self.epsilon < 1, "from 0 to below 1")

    def classification(self) -> Term:
        return Term("smoothed_cross_entropy", self.smoothed_cross_entropy)

    def smoothed_cross_entropy(self, cache: ForwardCache) -> Tensor:
        return cross_entropy(cache.logits("x"), cache.batch.targets, smoothing=self.epsilon)
