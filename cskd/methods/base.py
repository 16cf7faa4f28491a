"""What a method is: a head, a transform of the batch, and a sum of loss terms."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from cskd.data.loader import Batch
from cskd.errors import UserError


class Passes:
    """One training step's forward passes, each made once, when a loss term first asks for it.

    ``prepare`` turns a view's uint8 images into the network's input.
    """

    def __init__(self, model: nn.Module, batch: Batch, prepare: Callable[[Tensor], Tensor]):
        self.model, self.batch, self._prepare = model, batch, prepare
        self._features: dict[str, Tensor] = {}
        self._logits: dict[str, Tensor] = {}
        self._target_logits: dict[str, Tensor] = {}

    def features(self, view: str) -> Tensor:
        """Pooled features (N, D) of a view, with gradient."""
        if view not in self._features:
            self._features[view] = self.model.backbone(self._prepare(self.batch.views[view]))
        return self._features[view]

    def logits(self, view: str) -> Tensor:
        """Logits (N, C) of a view, with gradient."""
        if view not in self._logits:
            self._logits[view] = self.model.head(self.features(view))
        return self._logits[view]

    def target_logits(self, view: str) -> Tensor:
        """Logits (N, C) of a view as a target: no graph is made.

        The network stays in training mode: BatchNorm uses this pass's own statistics and counts it into its
        running ones, as in the released code.
        """
        if view not in self._target_logits:
            with torch.no_grad():
                self._target_logits[view] = self.model(self._prepare(self.batch.views[view]))
        return self._target_logits[view]


@dataclass(frozen=True)
class Term:
    """One summand of the loss: ``weight * loss(passes)``. ``views``: what the loader must make for it."""

    name: str
    loss: Callable[[Passes], Tensor]
    weight: float = 1.0
    views: frozenset[str] = frozenset({"x"})


@dataclass(frozen=True)
class Method(ABC):
    """The base of all methods; the dataclass fields of a subclass are its hyper-parameters."""

    name: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """The loss's summands, in the order in which they are evaluated."""

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        """What turns features into logits, at the test too."""
        return nn.Linear(feature_size, num_classes)

    def transform(self, batch: Batch, random: Generator) -> Batch:
        """A change to the whole batch before it is seen, such as mixing; none by default."""
        return batch

    @property
    def views(self) -> frozenset[str]:
        """Everything the loader has to make."""
        return frozenset().union(*(term.views for term in self.terms()))

    def parameters(self) -> dict[str, float]:
        """The hyper-parameters by name."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    def require(self, parameter: str, holds: bool, what: str) -> None:
        """Refuse a hyper-parameter's value; for a subclass's ``__post_init__``."""
        if not holds:
            raise UserError(f"{self.name}: {parameter} must be {what}, not {getattr(self, parameter)}")
