"""Cross-entropy alone: the baseline."""

from dataclasses import dataclass

from cskd.methods.base import Method


@dataclass(frozen=True)
class CrossEntropy(Method):
    """CE(x, y), the baseline of every table."""

    name = "cross-entropy"
    source = "the standard classification loss"
