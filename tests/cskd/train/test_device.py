"""Steps on a device whose values cannot be read: PyTorch's meta device, in place of a GPU."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainers import make_trainer

from cskd.methods import METHODS, PAPER_COMPOSITES

META = torch.device("meta")
COPIES = ("aten::_to_copy", "aten::copy_")


class Transfers(TorchDispatchMode):
    """Lists copies to the device. Operations on tensors of two devices fail; a number in a tensor may be on the CPU."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, keywords, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors if tensor.dim() or tensor.device == META}) > 1:
            assert function._schema.name in COPIES, f"{function} mixes devices"
            self.copies.append(function)
        return result


@pytest.fixture
def no_autocast(monkeypatch):
    """The meta device has none."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **options: nullcontext() if kind == "meta" else autocast(kind, **options)
    )


@pytest.mark.parametrize("method", [*METHODS, *PAPER_COMPOSITES])
def test_steps_neither_read_from_the_device_nor_mix_devices(method, no_autocast):
    """Reading would make each step wait for the GPU. Only labels, positions and crops are copied, once an epoch."""
    trainer = make_trainer(method=method, device=META)
    if trainer.steps.can_be_captured():
        trainer.steps.captured = trainer.steps.capturable()
    with Transfers() as transfers:
        steps = trainer.steps.epoch(0, check=lambda: None)
        copies = [len(transfers.copies) for _ in steps]
    assert 0 < copies[0] <= 7
    if not trainer.method.has_transform:  # which is drawn on the CPU, batch by batch
        assert copies == [copies[0]] * len(trainer.loader)
