"""Maximum-entropy regularisation (confidence penalty): a high entropy of the prediction lowers the loss."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import at_least_float32
from cskd.methods.base import ForwardCache, Method, Term


def negative_entropy(logits: Tensor) -> Tensor:
    """Return -H(softmax(logits)) of logits (N, C), mean over the batch: -ln C (uniform) to 0 (certain), in nats."""
    log_prediction = at_least_float32(logits).log_softmax(dim=1)
    return (log_prediction.exp() * log_prediction).sum(dim=1).mean()


@dataclass(frozen=True)
class MaxEntropy(Method):
    """CE(x, y) - beta * H(P(.|x)).

    With beta 1 the loss is minimal at a confidence of 27.6 % for 100 classes, and 24.1 % for 200 classes.
    """

    name = "max-entropy"
    source = "Pereyra et al. 2017; beta is not published, 1 fits the ECE in table 6 of Yun et al."

    beta: float = 1.0

    def __post_init__(self):
        self.require_weight("beta")

    def regularisers(self) -> tuple[Term, ...]:
        return (Term("negative_entropy", self.negative_entropy, self.beta),)

    def negative_entropy(self, cache: ForwardCache) -> Tensor:
        return negative_entropy(cache.logits("x"))
