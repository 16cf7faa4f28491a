"""KD: knowledge distillation from a trained teacher network."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import distillation_kl
from cskd.methods.base import ForwardCache, Method, Term, less_cross_entropy


@dataclass(frozen=True)
class KnowledgeDistillation(Method):
    """CE(x, y) + lambda_kd * T^2 * KL(P_teacher(.|x; T) || P(.|x; T)).

    The reading ``convex`` is (1 - lambda_kd) * CE(x, y) + lambda_kd * T^2 * KL.

    The teacher sees the same augmented image, in evaluation mode and without gradient.
    """

    name = "kd"
    source = "Hinton et al. 2015, T 4; the weight is not published, 1 is our choice"
    needs_teacher = True

    temperature: float = 4.0
    lambda_kd: float = 1.0
    convex: bool = False

    def __post_init__(self):
        self.require_temperature()
        self.require_weight("lambda_kd")
        self.require_reading("convex")
        self.require("lambda_kd", not self.convex or self.lambda_kd <= 1, "at most 1 if convex")

    @property
    def regularisers_have_cross_entropy(self) -> bool:
        return bool(self.convex)

    def regularisers(self) -> tuple[Term, ...]:
        kl = Term("teacher_kl", self.teacher_kl, self.lambda_kd)
        return (kl, less_cross_entropy(self.lambda_kd)) if self.convex else (kl,)

    def teacher_kl(self, cache: ForwardCache) -> Tensor:
        return distillation_kl(cache.logits("x"), cache.teacher_logits("x"), self.temperature)
