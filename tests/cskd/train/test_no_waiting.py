"""An epoch asks the device nothing: torch's device ``meta`` has no values, so that whoever read one would fail."""

import contextlib

import pytest
import torch
from arrays import random_split
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.data.loader import Normalise, TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import build_model
from cskd.train.schedule import Schedule
from cskd.train.trainer import Trainer

META = torch.device("meta")
STEPS = 4


class WaitingCopies(TorchDispatchMode):
    """Counts the copies from the CPU to the device that would wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and result.device == META:
            self.count += not kwargs.get("non_blocking", False)
        return result


@pytest.fixture
def no_autocast(monkeypatch):
    """torch's own does not know the device."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())


def trainer(method: str, *, size: tuple[int, int] | None, resizing: str | None) -> Trainer:
    built = build_method(method)
    model = build_model("resnet10", 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary)
    augmentation = PadAndCrop(8, 1) if size else ResizedCrop(8)
    transform = CenterCrop(8, None if size else 9)
    split = random_split(8 * STEPS - 2, 4, size=size)
    return Trainer(
        model,
        built,
        TrainLoader(
            split, augmentation, transform, views=built.views, batch_size=8, seed=0, device=META, resizing=resizing
        ),
        TestSet(split, transform, batch_size=8, device=META, resizing=resizing),
        Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), META),
        Schedule(epochs=1),
        seed=0,
        device=META,
        precision="fp32",
        teacher=build_model("resnet10", 4, 8, width=4) if built.needs_teacher else None,
    )


@pytest.mark.parametrize(
    ("method", "size", "resizing"),
    [
        *((method, (8, 8), None) for method in [*METHODS, *PAPER_COMPOSITES]),
        ("cs-kd-e", None, "resident"),
        ("cs-kd-e", None, "streamed"),
    ],
)
def test_no_step_waits_for_the_device(method, size, resizing, no_autocast):
    started = trainer(method, size=size, resizing=resizing)
    waiting, counts = WaitingCopies(), []
    with waiting, pytest.raises(RuntimeError, match="meta"):  # where the epoch's sums are read, after its last step
        started.train_epoch(0, on_step=lambda progress: counts.append(waiting.count))
    assert len(counts) == STEPS
    assert counts == [counts[0]] * STEPS  # what the first step counts is of the epoch's start
