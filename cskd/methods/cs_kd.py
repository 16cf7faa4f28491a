"""CS-KD: cross-entropy plus the class-wise regularisation. CS-KD-E adds a sample-wise one."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import class_wise_kl, distillation_kl
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


@dataclass(frozen=True)
class ClassWiseAndSampleWise(ClassWiseSelfKnowledgeDistillation):
    """CS-KD + lambda_e * T^2 * KL(P(.|clean x; T) || P(.|x; T)), without gradient through the clean view.

    Three forward passes and one backward pass per step.
    """

    name = "cs-kd-e"
    source = "Yun et al., CVPR 2020, section 4.3; lambda_e is not published, 1 is our choice"

    lambda_e: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        self.require_weight("lambda_e")

    def regularisers(self) -> tuple[Term, ...]:
        sample_wise = Term("sample_wise_kl", self.sample_wise_kl, self.lambda_e, frozenset({"x", "clean"}))
        return (*super().regularisers(), sample_wise)

    def sample_wise_kl(self, cache: ForwardCache) -> Tensor:
        return distillation_kl(cache.logits("x"), cache.target_logits("clean"), self.temperature)
