"""CS-KD-E: CS-KD, and each image's own un-augmented view as a second teacher."""

from dataclasses import dataclass

from cskd.losses import distillation_kl
from cskd.methods.base import ForwardCache, Term
from cskd.methods.cs_kd import ClassWiseSelfKnowledgeDistillation


@dataclass(frozen=True)
class ClassWiseAndSampleWise(ClassWiseSelfKnowledgeDistillation):
    """CS-KD + lambda_e * T^2 * KL(P(.|clean x; T) || P(.|x; T)), without gradient through the clean view.

    Three forward passes and one backward pass a step. The paper says lambda_e > 0 and no value: 1 is ours.
    """

    name = "cs-kd-e"
    source = "Yun et al., CVPR 2020, section 4.3; lambda_e is not published, 1 is ours"

    lambda_e: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        self.require_weight("lambda_e")

    def regularisers(self) -> tuple[Term, ...]:
        def sample_wise(passes: ForwardCache):
            return distillation_kl(passes.logits("x"), passes.target_logits("clean"), self.temperature)

        own = Term("sample_wise_kl", sample_wise, self.lambda_e, frozenset({"x", "clean"}))
        return (*super().regularisers(), own)
