"""The methods by name. To add a method, write its file, import it here and add a line to ``METHODS``."""

import dataclasses

from cskd.methods.adacos import AdaCos
from cskd.methods.base import Method
from cskd.methods.byot import BeYourOwnTeacher
from cskd.methods.composite import SEPARATOR, CompositeMethod
from cskd.methods.cross_entropy import CrossEntropy, LabelSmoothing, MaxEntropy
from cskd.methods.cs_kd import ClassWiseAndSampleWise, ClassWiseSelfKnowledgeDistillation
from cskd.methods.ddgsd import DataDistortionGuidedSelfDistillation
from cskd.methods.ingredients import (
    AnyPartner,
    BothGradients,
    ClassMean,
    PairHalves,
    PartnerPass,
    PermutedPartner,
    SameImage,
)
from cskd.methods.kd import KnowledgeDistillation
from cskd.methods.mixup import Mixup
from cskd.methods.virtual_softmax import VirtualSoftmax
from cskd.utils.errors import UserError, check_choice

# In a combination's name the parts have the order of these lines. Add a line at the end, and move none: a moved line
# renames existing combinations.
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
    "same-image": SameImage,
    "permuted-partner": PermutedPartner,
    "class-mean": ClassMean,
    "pair-halves": PairHalves,
    "partner-pass": PartnerPass,
    "any-partner": AnyPartner,
    "both-gradients": BothGradients,
}
PAPER_COMPOSITES = ("mixup+cs-kd", "kd+cs-kd")


def method_parts(name: str) -> list[str]:
    """Return the names of a combination's parts; for a single method, a list with its name.

    Raises UserError for an unknown or repeated part, and for parts in another order than in ``METHODS``: a combination
    has one name only.
    """
    canonical = canonical_name(name)
    if name != canonical:
        raise UserError(f"method {name} is written {canonical}")
    return name.split(SEPARATOR)


def canonical_name(name: str) -> str:
    """Return the name with its parts in the order of ``METHODS``. Raises UserError for an unknown or repeated part."""
    parts = [check_choice("method", part, METHODS) for part in name.split(SEPARATOR)]
    for part in parts:
        if parts.count(part) > 1:
            raise UserError(f"method {name}: {part} is given twice")
    return SEPARATOR.join(sorted(parts, key=list(METHODS).index))


def build_method(name: str, parameters: dict[str, float] | None = None) -> Method:
    """Return a method with the given hyper-parameters, and the defaults for the others.

    Hyper-parameters of a combination ``a+b`` are called ``a.<name>`` and ``b.<name>``. Raises UserError for an unknown
    method or hyper-parameter, an invalid value, and methods that cannot be combined.
    """
    parameters = parameters or {}
    if SEPARATOR not in name:
        return _build_single(check_choice("method", name, METHODS), parameters)
    parts = canonical_name(name).split(SEPARATOR)
    composite = CompositeMethod(tuple(_build_single(part, _parameters_of(part, parameters)) for part in parts))
    method_parts(name)  # checks the order last: an error about incompatible parts is more important
    for parameter in parameters:
        if not parameter.startswith(tuple(f"{part}." for part in parts)):
            raise _unknown_parameter(name, parameter, composite.parameters())
    return composite


def _parameters_of(part: str, parameters: dict[str, float]) -> dict[str, float]:
    """Return the hyper-parameters of one part, without the prefix ``<part>.``."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def _build_single(name: str, parameters: dict[str, float]) -> Method:
    method = METHODS[name]
    names = [field.name for field in dataclasses.fields(method)]
    for parameter in parameters:
        if parameter not in names:
            raise _unknown_parameter(name, parameter, names)
    return method(**parameters)


def _unknown_parameter(method: str, parameter: str, names) -> UserError:
    return UserError(f"method {method} has no hyper-parameter {parameter!r}: it has {', '.join(names) or 'none'}")
