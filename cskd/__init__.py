"""Class-wise self-knowledge distillation (CS-KD): losses, methods, networks, training and evaluation as a library.

Source of the method: Yun, Park, Lee, Shin, *Regularizing Class-wise Predictions via Self-knowledge
Distillation*, CVPR 2020, arXiv 2003.13964.

Importable from ``cskd`` itself (docs/library.md has examples):

- CS-KD in your own training: ``PairedDataset`` or ``PairBatchSampler``, and ``CSKDLoss``, ``ClassWiseKL`` or
  ``class_wise_kl``.
- Metrics of logits, as arrays or tensors, and temperature scaling with ``fit_temperature``.
- The networks of the paper: ``build_model``.

They are loaded on first use, so that ``import cskd`` does not import torch.
"""

import importlib

__version__ = "0.1.0"

# Part of every run key. Increase it when a code change alters the results of a run, so that results from before and
# after the change are never mixed as seeds of one cell.
NUMERICS_VERSION = 1

_NAMES = {
    "cskd.pairs": ("PairBatchSampler", "PairedDataset"),
    "cskd.losses": ("CSKDLoss", "ClassWiseKL", "class_wise_kl"),
    "cskd.models": ("build_model",),
    "cskd.evaluate.scores": (
        "brier_score",
        "expected_calibration_error",
        "negative_log_likelihood",
        "recall_at_1",
        "reliability_bins",
        "top_k_error",
    ),
    "cskd.evaluate.calibration": (
        "adaptive_calibration_error",
        "classwise_calibration_error",
        "debiased_calibration_error",
        "fit_temperature",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["NUMERICS_VERSION", *_MODULES]  # noqa: PLE0604 - the keys are names


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
