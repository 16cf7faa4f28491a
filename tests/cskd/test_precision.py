"""Which arithmetic is chosen."""

from types import SimpleNamespace

import pytest
import torch

from cskd.train.precision import resolve


@pytest.mark.parametrize(("generation", "chosen"), [(7, "fp32"), (8, "bf16")])
def test_a_gpu_that_only_emulates_bf16_gets_fp32(monkeypatch, generation, chosen):
    """Before Ampere, such as a T4, torch makes bf16 tensors, and computes them in fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=generation))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert resolve("auto", torch.device("cuda")) == chosen
    assert resolve("bf16", torch.device("cuda")) == "bf16"
