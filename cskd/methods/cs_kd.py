"""CS-KD: cross-entropy plus the class-wise regularisation."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import class_wise_kl
from cskd.methods.base import ForwardCache, Method, Term


@dataclass(frozen=True)
class ClassWiseSelfKnowledgeDistillation(Method):
    """CE(x, y) + lambda_cls * T^2 * KL(P(.|partner; T) || P(.|x; T)), without gradient through the partner.

    Two forward passes and one backward pass per step.
    """

    name = "cs-kd"
    source = "Yun et al., CVPR 2020; T=4, lambda_cls=1 are its setting for CIFAR-100 and ResNet-18"

    temperature: float = 4.0
    lambda_cls: float = 1.0

    def __post_init__(self):
        self.require_temperature()
        self.require_weight("lambda_cls")

    def regularisers(self) -> tuple[Term, ...]:
        return (Term("class_wise_kl", self.class_wise_kl, self.lambda_cls, frozenset({"x", "partner"})),)

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        return class_wise_kl(cache.logits("x"), cache.target_logits("partner"), self.temperature)
