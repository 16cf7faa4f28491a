"""Cross-entropy alone: the baseline."""

from dataclasses import dataclass

from cskd.losses import cross_entropy
from cskd.methods.base import Method, Term

CROSS_ENTROPY = Term("cross_entropy", lambda passes: cross_entropy(passes.logits("x"), passes.batch.targets))


@dataclass(frozen=True)
class CrossEntropy(Method):
    """The baseline of every table."""

    name = "cross-entropy"
    source = "the standard classification loss"

    def terms(self) -> tuple[Term, ...]:
        return (CROSS_ENTROPY,)
