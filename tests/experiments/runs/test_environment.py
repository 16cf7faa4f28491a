"""The switches of a GPU's kernels, which need no GPU to be set."""

import os

import pytest
import torch

from experiments.runs.environment import REPEATABLE, use_repeatable_kernels


def switches() -> dict[str, object]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "tf32 products": torch.backends.cuda.matmul.allow_tf32,
        "tf32 convolutions": torch.backends.cudnn.allow_tf32,
        "product precision": torch.get_float32_matmul_precision(),
        **{name: os.environ.get(name) for name in REPEATABLE},
    }


@pytest.fixture
def undo(monkeypatch):
    """Restore the switches after the test."""
    for name in REPEATABLE:
        monkeypatch.setenv(name, "")
    before = switches()
    yield
    torch.use_deterministic_algorithms(before["deterministic"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fill"]
    torch.backends.cuda.matmul.allow_tf32 = before["tf32 products"]
    torch.backends.cudnn.allow_tf32 = before["tf32 convolutions"]
    torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize(("precision", "tf32"), [("bf16", True), ("fp32", False)])
def test_kernels_of_a_gpu_are_deterministic_and_fp32_is_ieee_unless_bf16_is_used(undo, precision, tf32):
    use_repeatable_kernels(precision, torch.device("cuda"))
    assert switches() == REPEATABLE | {
        "deterministic": True,
        "fill": False,
        "tf32 products": tf32,
        "tf32 convolutions": tf32,
        "product precision": "high" if tf32 else "highest",
    }
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


def test_nothing_is_switched_on_a_cpu(undo):
    before = switches()
    use_repeatable_kernels("bf16", torch.device("cpu"))
    assert switches() == before
