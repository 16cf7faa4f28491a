"""Maximum-entropy regularisation, the confidence penalty: predictions are kept from being certain."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import precise
from cskd.methods.base import Method, Term


def negative_entropy(logits: Tensor) -> Tensor:
    """-H(softmax(logits)), mean over the batch, in nats: from -ln C (uniform) to 0 (certain). logits: (N, C)."""
    log_prediction = precise(logits).log_softmax(dim=1)
    return (log_prediction.exp() * log_prediction).sum(dim=1).mean()


@dataclass(frozen=True)
class MaxEntropy(Method):
    """CE(x, y) - beta * H(P(.|x)).

    With beta 1 a perfectly fitted image ends at a confidence of 27.6 % among 100 classes and 24.1 % among 200.
    """

    name = "max-entropy"
    source = "Pereyra et al. 2017; beta is not published, 1 fits the ECE in table 6 of Yun et al."

    beta: float = 1.0

    def __post_init__(self):
        self.require_weight("beta")

    def regularisers(self) -> tuple[Term, ...]:
        return (Term("negative_entropy", lambda passes: negative_entropy(passes.logits("x")), self.beta),)
