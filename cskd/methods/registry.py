"""The methods by name. A new one is a file beside these, imported here, and a line in ``METHODS``; ``a+b`` is a sum."""

import dataclasses

from cskd.methods.adacos import AdaCos
from cskd.methods.base import Method
from cskd.methods.byot import BeYourOwnTeacher
from cskd.methods.composite import SEPARATOR, CompositeMethod
from cskd.methods.cross_entropy import CrossEntropy
from cskd.methods.cs_kd import ClassWiseSelfKnowledgeDistillation
from cskd.methods.cs_kd_e import ClassWiseAndSampleWise
from cskd.methods.ddgsd import DataDistortionGuidedSelfDistillation
from cskd.methods.kd import KnowledgeDistillation
from cskd.methods.label_smoothing import LabelSmoothing
from cskd.methods.max_entropy import MaxEntropy
from cskd.methods.mixup import Mixup
from cskd.methods.virtual_softmax import VirtualSoftmax
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError

METHODS: dict[str, type[Method]] = {
    "cross-entropy": CrossEntropy,
    "adacos": AdaCos,
    "virtual-softmax": VirtualSoftmax,
    "max-entropy": MaxEntropy,
    "label-smoothing": LabelSmoothing,
    "ddgsd": DataDistortionGuidedSelfDistillation,
    "byot": BeYourOwnTeacher,
    "mixup": Mixup,
    "kd": KnowledgeDistillation,
    "cs-kd": ClassWiseSelfKnowledgeDistillation,
    "cs-kd-e": ClassWiseAndSampleWise,
}
PAPER_COMPOSITES = ("mixup+cs-kd", "kd+cs-kd")


def method_parts(name: str) -> list[str]:
    """The names in ``a+b``; of a single method its own.

    Raises UserError for a part that is not known or comes twice, and for parts in another order than that of
    ``METHODS``: a sum has one name.
    """
    ordered = _ordered(name)
    if name.split(SEPARATOR) != ordered:
        raise UserError(f"method {name} is written {SEPARATOR.join(ordered)}")
    return ordered


def canonical_name(name: str) -> str:
    """The one name of a method, whatever the order of a sum's parts. Raises UserError for one unknown or twice."""
    return SEPARATOR.join(_ordered(name))


def _ordered(name: str) -> list[str]:
    """The parts of a name, each given once, in the order of ``METHODS``."""
    parts = [check_choice("method", part, METHODS) for part in name.split(SEPARATOR)]
    for part in parts:
        if parts.count(part) > 1:
            raise UserError(f"method {name}: {part} is given twice")
    return sorted(parts, key=list(METHODS).index)


def build_method(name: str, parameters: dict[str, float] | None = None) -> Method:
    """The method ``name`` with these hyper-parameters, its own defaults for the others.

    Those of a sum ``a+b`` are called ``a.<name>`` and ``b.<name>``. Raises UserError for an unknown method, an
    unknown hyper-parameter, a value that makes no sense, or methods that cannot be combined.
    """
    parameters = parameters or {}
    if SEPARATOR not in name:
        return _build_one(check_choice("method", name, METHODS), parameters)
    parts = _ordered(name)
    own = {part: _parameters_of(part, parameters) for part in parts}
    whole = CompositeMethod(tuple(_build_one(part, own[part]) for part in parts))
    method_parts(name)  # how it is written is said after what cannot be combined
    for parameter in parameters:
        if not parameter.startswith(tuple(f"{part}." for part in parts)):
            has = ", ".join(whole.parameters()) or "none"
            raise UserError(f"method {name} has no hyper-parameter {parameter!r}: it has {has}")
    return whole


def _parameters_of(part: str, parameters: dict[str, float]) -> dict[str, float]:
    """Those of one part, by the names that they have there."""
    before = f"{part}."
    return {name.removeprefix(before): value for name, value in parameters.items() if name.startswith(before)}


def _build_one(name: str, parameters: dict[str, float]) -> Method:
    method = METHODS[name]
    names = [field.name for field in dataclasses.fields(method)]
    for parameter in parameters:
        if parameter not in names:
            raise UserError(f"method {name} has no hyper-parameter {parameter!r}: it has {', '.join(names) or 'none'}")
    return method(**parameters)
