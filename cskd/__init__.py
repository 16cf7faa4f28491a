"""Class-wise self-knowledge distillation (CS-KD): losses, methods, networks, training and evaluation as a library.

Source of the method: Yun, Park, Lee, Shin, *Regularizing Class-wise Predictions via Self-knowledge
Distillation*, CVPR 2020, arXiv 2003.13964.

Importable from ``cskd`` itself:

- ``class_wise_kl(logits, partner_logits, temperature)``: the regularisation term of CS-KD.
- ``build_model(name, num_classes, image_size)``: a network of the paper.
- ``expected_calibration_error(logits, labels)``: the ECE, as a fraction.

They are loaded on first use, so that ``import cskd`` does not import torch.
"""

import importlib

__version__ = "0.1.0"

# Part of every run key. Increase it when a code change alters the results of a run, so that results from before and
# after the change are never mixed as seeds of one cell.
NUMERICS_VERSION = 1

_MODULES = {
    "class_wise_kl": "cskd.losses",
    "build_model": "cskd.models",
    "expected_calibration_error": "cskd.evaluate.scores",
}
__all__ = ["NUMERICS_VERSION", *_MODULES]  # noqa: PLE0604 - the keys are names


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
