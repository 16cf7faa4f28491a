"""The methods by name. A new one is a file beside these and a line in ``METHODS``."""

import dataclasses

from cskd.cli import known
from cskd.errors import UserError
from cskd.methods.base import Method, Passes, Term
from cskd.methods.cross_entropy import CrossEntropy
from cskd.methods.cs_kd import ClassWiseSelfKnowledgeDistillation

METHODS: dict[str, type[Method]] = {
    "cross-entropy": CrossEntropy,
    "cs-kd": ClassWiseSelfKnowledgeDistillation,
}


def build_method(name: str, parameters: dict[str, float] | None = None) -> Method:
    """The method ``name`` with these hyper-parameters, its own defaults for the others.

    Raises UserError for an unknown method, an unknown hyper-parameter, or a value that makes no sense.
    """
    method = METHODS[known("method", name, METHODS)]
    names = [field.name for field in dataclasses.fields(method)]
    for parameter in parameters or {}:
        if parameter not in names:
            raise UserError(f"method {name} has no hyper-parameter {parameter!r}: it has {', '.join(names) or 'none'}")
    return method(**(parameters or {}))


__all__ = ["METHODS", "Method", "Passes", "Term", "build_method"]
