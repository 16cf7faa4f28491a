"""Knowledge distillation: another network, trained before, teaches."""

from dataclasses import dataclass

from cskd.losses import distillation_kl
from cskd.methods.base import ForwardCache, Method, Term


@dataclass(frozen=True)
class KnowledgeDistillation(Method):
    """CE(x, y) + lambda_kd * T^2 * KL(P_teacher(.|x; T) || P(.|x; T)).

    The teacher sees the same augmented image, in evaluation mode and without gradient; its pass is made once a
    step, whatever else asks for it.
    """

    name = "kd"
    source = "Hinton et al. 2015, T 4; the weight is not published, 1 is ours"
    needs_teacher = True

    temperature: float = 4.0
    lambda_kd: float = 1.0

    def __post_init__(self):
        self.require_temperature()
        self.require_weight("lambda_kd")

    def regularisers(self) -> tuple[Term, ...]:
        def taught(passes: ForwardCache):
            return distillation_kl(passes.logits("x"), passes.teacher_logits("x"), self.temperature)

        return (Term("teacher_kl", taught, self.lambda_kd),)
