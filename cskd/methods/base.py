"""What a method is: a head, a transform of the batch, and a sum of loss terms."""

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from cskd.data.loader import Batch
from cskd.losses import cross_entropy
from cskd.utils.errors import UserError

MAX_TEMPERATURE = 1_000_000  # temperature: all predictions are uniform long before


class ForwardCache:
    """One training step's forward passes, each made once, when a loss term first asks for it.

    ``prepare`` turns a view's images into the network's input. ``teacher``: another network, trained before,
    for methods that need one.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        prepare: Callable[[Tensor], Tensor],
        teacher: nn.Module | None = None,
    ):
        self.model, self.batch, self.teacher, self._prepare = model, batch, teacher, prepare
        self._inputs: dict[str, Tensor] = {}
        self._stages: dict[str, tuple[Tensor, ...]] = {}
        self._features: dict[str, Tensor] = {}
        self._logits: dict[str, Tensor] = {}
        self._target_logits: dict[str, Tensor] = {}
        self._teacher_logits: dict[str, Tensor] = {}
        self._auxiliary: dict[str, Any] = {}

    def _input(self, view: str) -> Tensor:
        if view not in self._inputs:
            self._inputs[view] = self._prepare(self.batch.views[view])
        return self._inputs[view]

    def stages(self, view: str) -> tuple[Tensor, ...]:
        """The feature maps (N, C_i, H_i, W_i) of a view after each stage of the backbone, with gradient."""
        if view not in self._stages:
            self._stages[view] = self.model.backbone.stage_maps(self._input(view))
        return self._stages[view]

    def features(self, view: str) -> Tensor:
        """Pooled features (N, D) of a view, with gradient."""
        if view not in self._features:
            self._features[view] = self.model.backbone.pool(self.stages(view)[-1])
        return self._features[view]

    def logits(self, view: str) -> Tensor:
        """Logits (N, C) of a view, with gradient."""
        if view not in self._logits:
            self._logits[view] = self.model.head(self.features(view))
        return self._logits[view]

    def auxiliary(self, view: str) -> Any:
        """What the method's own layers (``Method.build_auxiliary``) make of a view's stages, with gradient."""
        if view not in self._auxiliary:
            self._auxiliary[view] = self.model.auxiliary(self.stages(view))
        return self._auxiliary[view]

    def target_logits(self, view: str) -> Tensor:
        """Logits (N, C) of a view as a target: no graph is made.

        The network stays in training mode: BatchNorm uses this pass's own statistics and counts it into its
        running ones, as in the released code.
        """
        if view not in self._target_logits:
            with torch.no_grad():
                self._target_logits[view] = self.model(self._input(view))
        return self._target_logits[view]

    def teacher_logits(self, view: str) -> Tensor:
        """The teacher's logits (N, C) of a view: no graph is made, and nothing of the teacher changes."""
        if view not in self._teacher_logits:
            with torch.no_grad():
                self._teacher_logits[view] = self.teacher(self._input(view))
        return self._teacher_logits[view]


@dataclass(frozen=True)
class Term:
    """One summand of the loss: ``weight * loss(passes)``. ``views``: what the loader must make for it."""

    name: str
    loss: Callable[[ForwardCache], Tensor]
    weight: float = 1.0
    views: frozenset[str] = frozenset({"x"})


CROSS_ENTROPY = Term("cross_entropy", lambda passes: cross_entropy(passes.logits("x"), passes.batch.targets))


@dataclass(frozen=True)
class Method(ABC):
    """The base of all methods; the dataclass fields of a subclass are its hyper-parameters.

    A method is what it changes: ``classification``, where it learns the labels in another way than by
    cross-entropy; ``regularisers``, what it adds to that; the head; the batch.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs_teacher: ClassVar[bool] = False  # a network trained before, frozen and in evaluation mode
    mixes_labels: ClassVar[bool] = False  # its batches have more than one class an image
    requires_hard_labels: ClassVar[bool] = False  # its loss has no meaning for mixed labels
    has_own_cross_entropy: ClassVar[bool] = False  # its regularisers have cross-entropies of their own
    incompatible_logits: ClassVar[bool] = False  # its logits are not those that other methods' terms expect

    def classification(self) -> Term:
        """The term that learns the labels."""
        return CROSS_ENTROPY

    def regularisers(self) -> tuple[Term, ...]:
        """The terms beside it; none by default."""
        return ()

    def terms(self) -> tuple[Term, ...]:
        """The loss's summands, in the order in which they are evaluated."""
        return (self.classification(), *self.regularisers())

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        """What turns features into logits, at the test too."""
        return nn.Linear(feature_size, num_classes)

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module | None:
        """Layers beside the head that only the training needs; none by default."""
        return None

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

    def require_weight(self, *parameters: str) -> None:
        """Refuse a weight of a loss term that is negative or not finite."""
        for parameter in parameters:
            self.require(parameter, 0 <= getattr(self, parameter) < math.inf, "zero or positive")

    def require_temperature(self, parameter: str = "temperature") -> None:
        """Refuse a temperature that no prediction can be divided by, or whose square is no number."""
        self.require(parameter, getattr(self, parameter) > 0, "positive")
        self.require(parameter, getattr(self, parameter) <= MAX_TEMPERATURE, f"at most {MAX_TEMPERATURE:,}")
