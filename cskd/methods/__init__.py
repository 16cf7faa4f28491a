"""The training methods. ``registry.py`` lists them by name; a new method is a file here and a line there."""

from cskd.methods.base import ForwardCache, Method, Term
from cskd.methods.registry import METHODS, PAPER_COMPOSITES, build_method, canonical_name, method_parts

__all__ = [
    "METHODS",
    "PAPER_COMPOSITES",
    "ForwardCache",
    "Method",
    "Term",
    "build_method",
    "canonical_name",
    "method_parts",
]
