"""CS-KD-E: CS-KD with the image's view without augmentation as a second teacher."""

from dataclasses import dataclass

from torch import Tensor

from cskd.losses import distillation_kl
from cskd.methods.base import ForwardCache, Term
from cskd.methods.cs_kd import ClassWiseSelfKnowledgeDistillation


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
