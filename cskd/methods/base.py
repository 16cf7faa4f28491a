"""The interface of a method: loss terms, a head, and a transform of the batch."""

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from cskd.batch import Batch
from cskd.losses import cross_entropy
from cskd.utils.errors import UserError

MAX_TEMPERATURE = 1_000_000  # far above the temperature at which all predictions are uniform


def _once(forward: Callable) -> Callable:
    """Make a method of ForwardCache compute its result once per view."""

    @wraps(forward)
    def cached(self, view: str):
        key = (forward.__name__, view)
        if key not in self._results:
            self._results[key] = forward(self, view)
        return self._results[key]

    return cached


class ForwardCache:
    """The forward passes of one training step. Each is computed once, when a loss term first needs it.

    prepare: turns a view's images into the network's input.
    teacher: a trained network, for methods with ``needs_teacher``.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        prepare: Callable[[Tensor], Tensor],
        teacher: nn.Module | None = None,
    ):
        self.model, self.batch, self.teacher, self.prepare = model, batch, teacher, prepare
        self._results: dict[tuple[str, str], Any] = {}

    @_once
    def input(self, view: str) -> Tensor:
        """Return the network's input (N, 3, H, W) for a view."""
        return self.prepare(self.batch.views[view])

    @_once
    def stages(self, view: str) -> tuple[Tensor, ...]:
        """Return the feature map (N, C_i, H_i, W_i) after each stage of the backbone, with gradient."""
        return self.model.backbone.stage_maps(self.input(view))

    @_once
    def features(self, view: str) -> Tensor:
        """Return the pooled features (N, D), with gradient."""
        return self.model.backbone.pool(self.stages(view)[-1])

    @_once
    def logits(self, view: str) -> Tensor:
        """Return the logits (N, C), with gradient."""
        return self.model.head(self.features(view))

    @_once
    def auxiliary(self, view: str) -> Any:
        """Return the output of the layers of ``Method.build_auxiliary`` for a view's stages, with gradient."""
        return self.model.auxiliary(self.stages(view))

    @_once
    def target_logits(self, view: str) -> Tensor:
        """Return the logits (N, C) without gradient, for use as a target.

        The network stays in training mode, as in the released code: BatchNorm uses and records this batch's statistics.
        """
        with torch.no_grad():
            return self.model(self.input(view))

    @_once
    def teacher_logits(self, view: str) -> Tensor:
        """Return the teacher's logits (N, C) without gradient."""
        with torch.no_grad():
            return self.teacher(self.input(view))


@dataclass(frozen=True)
class Term:
    """One term of the loss, ``weight * loss(cache)``. The loader makes the images of ``views``."""

    name: str
    loss: Callable[[ForwardCache], Tensor]
    weight: float = 1.0
    views: frozenset[str] = frozenset({"x"})


CROSS_ENTROPY = Term("cross_entropy", lambda cache: cross_entropy(cache.logits("x"), cache.batch.targets))


def less_cross_entropy(share: float) -> Term:
    """Return a regulariser that takes this share off the cross-entropy, which other methods in a combination share."""
    return Term("less_cross_entropy", CROSS_ENTROPY.loss, -share)


@dataclass(frozen=True)
class Method(ABC):
    """Base class of all methods. The dataclass fields of a subclass are its hyper-parameters.

    A subclass overrides the parts in which it differs from plain training: the classification term, further loss
    terms (``regularisers``), the head, auxiliary layers, or the transform of the batch.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs_teacher: ClassVar[bool] = False  # a trained network, frozen and in evaluation mode
    mixes_labels: ClassVar[bool] = False  # after its transform an image has several classes; replicas mix whole batches
    requires_hard_labels: ClassVar[bool] = False  # its loss is undefined for mixed labels
    regularisers_have_cross_entropy: ClassVar[bool] = False  # beside the one on the labels
    incompatible_logits: ClassVar[bool] = False  # the losses of other methods cannot use its logits

    def classification(self) -> Term:
        """Return the loss term that trains on the labels."""
        return CROSS_ENTROPY

    def regularisers(self) -> tuple[Term, ...]:
        """Return the terms that are added to the classification term."""
        return ()

    def terms(self) -> tuple[Term, ...]:
        """Return all terms of the loss, in the order of evaluation."""
        return (self.classification(), *self.regularisers())

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        """Return the layer from features to logits."""
        return nn.Linear(feature_size, num_classes)

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module | None:
        """Return layers on the feature maps that only training uses, or None."""
        return None

    def transform(self, batch: Batch, random: Generator) -> Batch:
        """Return the batch that is trained on, such as a mixed one. All random draws must come from ``random``."""
        return batch

    @property
    def has_transform(self) -> bool:
        """True if the method changes the batch, with random numbers that it draws on the CPU."""
        return type(self).transform is not Method.transform

    @property
    def views(self) -> frozenset[str]:
        """The views that the loader has to make."""
        return frozenset().union(*(term.views for term in self.terms()))

    def parameters(self) -> dict[str, float]:
        """Return the hyper-parameters by name, without readings at their default: a new reading changes no run key.

        A reading is a bool: it chooses between loss functions that the method's description allows.
        """
        values = {field: float(getattr(self, field.name)) for field in fields(self)}
        return {
            field.name: value
            for field, value in values.items()
            if not isinstance(field.default, bool) or value != field.default
        }

    def require(self, parameter: str, holds: bool, expected: str) -> None:
        """Raise UserError unless ``holds``. For ``__post_init__`` of a subclass."""
        if not holds:
            raise UserError(f"{self.name}: {parameter} must be {expected}, not {getattr(self, parameter)}")

    def require_weight(self, *parameters: str) -> None:
        """Raise UserError for a negative or infinite weight of a loss term."""
        for parameter in parameters:
            self.require(parameter, 0 <= getattr(self, parameter) < math.inf, "zero or positive")

    def require_reading(self, *parameters: str) -> None:
        """Raise UserError for a reading that is neither true nor false."""
        for parameter in parameters:
            self.require(parameter, getattr(self, parameter) in (False, True), "true or false")

    def require_temperature(self) -> None:
        """Raise UserError for a temperature that is not positive or above MAX_TEMPERATURE."""
        self.require("temperature", self.temperature > 0, "positive")
        self.require("temperature", self.temperature <= MAX_TEMPERATURE, f"at most {MAX_TEMPERATURE:,}")
