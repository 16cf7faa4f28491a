"""How often checkpoints are written, and which precision is chosen."""

from types import SimpleNamespace

import pytest
import torch

from cskd.train import checkpoint
from cskd.train.checkpoint import Checkpoints
from cskd.train.precision import resolve


@pytest.mark.parametrize(
    ("epoch_seconds", "cost", "expected"),
    [
        (60.0, 0.9, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # long epochs
        (1.0, 0.09, [1, 6]),  # 2 % of the time is 4.5 s
        (4.0, 5.0, [1, 9]),  # expensive checkpoints: every 30 s
    ],
)
def test_checkpoints_take_at_most_two_percent_of_the_time(monkeypatch, tmp_path, epoch_seconds, cost, expected):
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_archive", lambda *_, **__: now.__setitem__(0, now[0] + cost))
    checkpoints, written = Checkpoints(tmp_path / "checkpoint.pt", "run"), []
    for number in range(1, 11):
        now[0] += epoch_seconds
        if checkpoints.is_due():
            checkpoints.write({"records": []})
            written.append(number)
    assert written == expected


@pytest.mark.parametrize(("generation", "expected"), [(7, "fp32"), (8, "bf16")])
def test_gpu_that_only_emulates_bf16_gets_fp32(monkeypatch, generation, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=generation))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert resolve("auto", torch.device("cuda")) == expected
