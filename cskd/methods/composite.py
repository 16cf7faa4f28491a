"""Sums of methods, written ``a+b``: composed of their parts, with no loss of their own."""

from dataclasses import dataclass

from torch import Generator, nn

from cskd.data.loader import Batch
from cskd.methods.base import Method, Term
from cskd.utils.errors import UserError

SEPARATOR = "+"


@dataclass(frozen=True)
class CompositeMethod(Method):
    """Every part's transform and regularisers; one classification term and one head, from the part that has its own.

    A hyper-parameter is called ``<part>.<name>``. Raises UserError for parts that contradict each other.
    """

    parts: tuple[Method, ...]

    def __post_init__(self):
        _refuse_contradictions(self.name, self.parts)

    @property
    def name(self) -> str:
        return SEPARATOR.join(part.name for part in self.parts)

    @property
    def source(self) -> str:
        return "; ".join(f"{part.name}: {part.source}" for part in self.parts)

    @property
    def needs_teacher(self) -> bool:
        return any(part.needs_teacher for part in self.parts)

    @property
    def mixes_labels(self) -> bool:
        return any(part.mixes_labels for part in self.parts)

    def classification(self) -> Term:
        return self._own("classification").classification()

    def regularisers(self) -> tuple[Term, ...]:
        return tuple(term for part in self.parts for term in part.regularisers())

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return self._own("build_head").build_head(feature_size, num_classes)

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module | None:
        return self._own("build_auxiliary").build_auxiliary(stage_channels, feature_size, num_classes)

    def transform(self, batch: Batch, random: Generator) -> Batch:
        for part in self.parts:
            batch = part.transform(batch, random)
        return batch

    def parameters(self) -> dict[str, float]:
        return {f"{part.name}.{name}": value for part in self.parts for name, value in part.parameters().items()}

    def _own(self, what: str) -> Method:
        """The part that has its own ``what``, or any."""
        return next((part for part in self.parts if _overrides(part, what)), self.parts[0])


def _overrides(part: Method, what: str) -> bool:
    return getattr(type(part), what) is not getattr(Method, what)


def _refuse_contradictions(name: str, parts: tuple[Method, ...]) -> None:
    for part in parts:
        if part.incompatible_logits:
            raise UserError(f"{name}: {part.name} cannot be combined: its logits are not what other losses expect")
        for other in parts:
            if part.requires_hard_labels and other.mixes_labels:
                raise UserError(f"{name}: {part.name} needs one true class an image, and {other.name} mixes several")
            if part.has_own_cross_entropy and _overrides(other, "classification"):
                message = f"{other.name} replaces the cross-entropy, of which {part.name} has more than one"
                raise UserError(f"{name}: {message}: take one of them")
        if not part.regularisers() and not any(
            _overrides(part, what) for what in ("classification", "transform", "build_head")
        ):
            raise UserError(f"{name}: {part.name} adds nothing: cross-entropy is part of the other methods")
    for what, message in (("classification", "the cross-entropy"), ("build_head", "the head")):
        several = [part.name for part in parts if _overrides(part, what)]
        if len(several) > 1:
            raise UserError(f"{name}: {' and '.join(several)} each replace {message}: take one of them")
    terms = [term.name for part in parts for term in part.regularisers()]
    twice = next((term for term in terms if terms.count(term) > 1), None)
    if twice:
        raise UserError(f"{name}: more than one of the methods adds {twice}: take one of them")
