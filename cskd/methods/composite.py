"""Combinations of methods, written ``a+b``. A combination adds no further loss."""

from dataclasses import dataclass

from torch import Generator, nn

from cskd.batch import Batch
from cskd.methods.base import Method, Term
from cskd.utils.errors import UserError

SEPARATOR = "+"


@dataclass(frozen=True)
class CompositeMethod(Method):
    """All transforms and regularisers of the parts.

    The classification term, the head and the auxiliary layers are those of the part that overrides them.
    Hyper-parameters are called ``<part>.<name>``. Raises UserError for parts that cannot be combined.
    """

    parts: tuple[Method, ...]

    def __post_init__(self):
        check_compatible(self.name, self.parts)

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

    @property
    def has_transform(self) -> bool:
        return any(part.has_transform for part in self.parts)

    def classification(self) -> Term:
        return self._part_with("classification").classification()

    def regularisers(self) -> tuple[Term, ...]:
        return tuple(term for part in self.parts for term in part.regularisers())

    def build_head(self, feature_size: int, num_classes: int) -> nn.Module:
        return self._part_with("build_head").build_head(feature_size, num_classes)

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module | None:
        return self._part_with("build_auxiliary").build_auxiliary(stage_channels, feature_size, num_classes)

    def transform(self, batch: Batch, random: Generator) -> Batch:
        for part in self.parts:
            batch = part.transform(batch, random)
        return batch

    def parameters(self) -> dict[str, float]:
        return {f"{part.name}.{name}": value for part in self.parts for name, value in part.parameters().items()}

    def _part_with(self, attribute: str) -> Method:
        """Return the part that overrides ``attribute``, or the first part."""
        return next((part for part in self.parts if _overrides(part, attribute)), self.parts[0])


def _overrides(part: Method, attribute: str) -> bool:
    return getattr(type(part), attribute) is not getattr(Method, attribute)


CONFLICTS = (
    ("classification", "the cross-entropy"),
    ("build_head", "the head"),
    ("build_auxiliary", "the auxiliary layers"),
)


def check_compatible(name: str, parts: tuple[Method, ...]) -> None:
    """Raise UserError if the parts cannot be combined. name: the combination's name, for the message."""
    for part in parts:
        if part.incompatible_logits:
            raise UserError(f"{name}: {part.name} cannot be combined: other losses cannot use its logits")
        for other in parts:
            if part.requires_hard_labels and other.mixes_labels:
                raise UserError(f"{name}: {part.name} needs one class per image, but {other.name} mixes classes")
            if part.regularisers_have_cross_entropy and _overrides(other, "classification"):
                raise UserError(
                    f"{name}: {other.name} replaces the cross-entropy, but {part.name} has several: use one of the two"
                )
        overridden = [_overrides(part, attribute) for attribute in ("classification", "transform", "build_head")]
        if not part.regularisers() and not any(overridden):
            raise UserError(f"{name}: {part.name} adds nothing: the other methods include cross-entropy")
    for attribute, description in CONFLICTS:
        overriding = [part.name for part in parts if _overrides(part, attribute)]
        if len(overriding) > 1:
            raise UserError(f"{name}: {' and '.join(overriding)} both replace {description}: use one of them")
    terms = [term.name for part in parts for term in part.regularisers()]
    for term in terms:
        if terms.count(term) > 1:
            raise UserError(f"{name}: several methods add {term}: use one of them")
