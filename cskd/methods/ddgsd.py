"""DDGSD: two augmentations of each image learn the label, each other's prediction and the same mean features."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cskd.losses import at_least_float32, cross_entropy, distillation_kl
from cskd.methods.base import ForwardCache, Method, Term, less_cross_entropy


def symmetric_kl(logits: Tensor, other_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 * (KL(P || Q) + KL(Q || P)) of two softened predictions, mean over the batch, in nats.

    Both inputs are (N, C), and both receive gradient.
    """
    log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=1)
    log_q = F.log_softmax(at_least_float32(other_logits) / temperature, dim=1)
    return temperature**2 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean()


def mean_feature_distance(features: Tensor, other_features: Tensor) -> Tensor:
    """Return the squared L2 distance of the batches' mean features, both (N, D): the MMD with a linear kernel."""
    difference = at_least_float32(features).mean(dim=0) - at_least_float32(other_features).mean(dim=0)
    return difference.square().sum()


@dataclass(frozen=True)
class DataDistortionGuidedSelfDistillation(Method):
    """CE(x, y) + CE(x2, y) + lambda_kl * symmetric KL(x, x2; T) + mu * feature distance; x2 is a second augmentation.

    Two forward and two backward passes per step. The readings are the points in which implementations differ.
    """

    name = "ddgsd"
    source = "Xu and Liu, AAAI 2019; weights 1 and 0.0005, T 3 and T^2 as in re-implementations"
    regularisers_have_cross_entropy = True

    temperature: float = 3.0
    lambda_kl: float = 1.0
    mu: float = 0.0005
    t_squared: bool = True  # the KL has the factor T^2
    detach_targets: bool = False  # each KL has gradient through the prediction that learns only
    mean_over_classes: bool = False  # the KL is divided by the number of classes
    halve_cross_entropy: bool = False  # (CE(x, y) + CE(x2, y)) / 2

    def __post_init__(self):
        self.require_temperature()
        self.require_weight("lambda_kl", "mu")
        self.require_reading("t_squared", "detach_targets", "mean_over_classes", "halve_cross_entropy")

    def regularisers(self) -> tuple[Term, ...]:
        views = frozenset({"x", "second"})
        share = 0.5 if self.halve_cross_entropy else 1.0
        terms = (
            Term("second_cross_entropy", self.second_cross_entropy, share, frozenset({"second"})),
            Term("symmetric_kl", self.symmetric_kl, self.lambda_kl, views),
            Term("feature_distance", self.feature_distance, self.mu, views),
        )
        return (*terms, less_cross_entropy(1 - share)) if self.halve_cross_entropy else terms

    def second_cross_entropy(self, cache: ForwardCache) -> Tensor:
        return cross_entropy(cache.logits("second"), cache.batch.targets)

    def symmetric_kl(self, cache: ForwardCache) -> Tensor:
        x, second, temperature = cache.logits("x"), cache.logits("second"), self.temperature
        if self.detach_targets:
            kl = distillation_kl(x, second, temperature) + distillation_kl(second, x, temperature)
        else:
            kl = symmetric_kl(x, second, temperature)
        if not self.t_squared:
            kl = kl / temperature**2
        return kl / x.shape[1] if self.mean_over_classes else kl

    def feature_distance(self, cache: ForwardCache) -> Tensor:
        return mean_feature_distance(cache.features("x"), cache.features("second"))
