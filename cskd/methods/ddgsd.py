"""DDGSD: two distortions of each image learn the label, each other's prediction, and the same features on average."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cskd.losses import cross_entropy, precise
from cskd.methods.base import Method, Term


def symmetric_kl(logits: Tensor, other_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * (KL(P || Q) + KL(Q || P)) of the two softened predictions, mean over the batch, in nats.

    Both (N, C); gradient flows into both. Zero where they agree.
    """
    one, other = (F.log_softmax(precise(values) / temperature, dim=1) for values in (logits, other_logits))
    return temperature**2 * ((one.exp() - other.exp()) * (one - other)).sum(dim=1).mean()


def mean_feature_distance(features: Tensor, other_features: Tensor) -> Tensor:
    """Squared L2 distance of the batches' mean features, both (N, D): the MMD with a linear kernel."""
    difference = precise(features).mean(dim=0) - precise(other_features).mean(dim=0)
    return difference.square().sum()


@dataclass(frozen=True)
class DataDistortionGuidedSelfDistillation(Method):
    """CE(x, y) + CE(x2, y) + lambda_kl * symmetric KL(x, x2; T) + mu * feature distance, x2 another distortion of x.

    Two forward and two backward passes a step.
    """

    name = "ddgsd"
    source = "Xu and Liu, AAAI 2019, as re-implemented: weights 1 and 0.0005, T 3; T^2 before the KL is ours"

    has_own_cross_entropy = True

    temperature: float = 3.0
    lambda_kl: float = 1.0
    mu: float = 0.0005

    def __post_init__(self):
        self.require_temperature()
        self.require_weight("lambda_kl", "mu")

    def regularisers(self) -> tuple[Term, ...]:
        both = frozenset({"x", "second"})
        return (
            Term(
                "second_cross_entropy",
                lambda passes: cross_entropy(passes.logits("second"), passes.batch.targets),
                views=frozenset({"second"}),
            ),
            Term(
                "symmetric_kl",
                lambda passes: symmetric_kl(passes.logits("x"), passes.logits("second"), self.temperature),
                self.lambda_kl,
                both,
            ),
            Term(
                "feature_distance",
                lambda passes: mean_feature_distance(passes.features("x"), passes.features("second")),
                self.mu,
                both,
            ),
        )
