"""A training step never waits for the device: on torch's device ``meta``, which has no values, reading one raises."""

import contextlib

import pytest
import torch
from arrays import random_split
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import build_model
from cskd.train.schedule import Schedule
from cskd.train.trainer import Trainer

META = torch.device("meta")
STEPS = 4
CASES = [
    *((method, (8, 8), None) for method in [*METHODS, *PAPER_COMPOSITES]),
    ("cs-kd-e", None, "resident"),
    ("cs-kd-e", None, "streamed"),
]


class WaitingCopies(TorchDispatchMode):
    """Counts the copies from the CPU to the device that wait for it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and result.device == META:
            self.count += not kwargs.get("non_blocking", False)
        return result


@pytest.mark.parametrize(("method", "size", "resizing"), CASES)
def test_no_step_waits_for_the_device(method, size, resizing, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())  # unknown on meta
    built = build_method(method)
    split = random_split(8 * STEPS - 2, 4, size=size)
    transform, augmentation = CenterCrop(8, None if size else 9), PadAndCrop(8, 1) if size else ResizedCrop(8)
    options = {"batch_size": 8, "device": META, "resizing": resizing}
    trainer = Trainer(
        build_model("resnet10", 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary),
        built,
        TrainLoader(split, augmentation, transform, views=built.views, seed=0, **options),
        TestSet(split, transform, **options),
        Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), META),
        Schedule(epochs=1),
        seed=0,
        device=META,
        precision="fp32",
        teacher=build_model("resnet10", 4, 8, width=4) if built.needs_teacher else None,
    )
    waiting, counts = WaitingCopies(), []
    with waiting, pytest.raises(RuntimeError, match="meta"):  # the epoch's sums are read after its last step
        trainer.train_epoch(0, on_step=lambda progress: counts.append(waiting.count))
    assert counts == [counts[0]] * STEPS  # the first step's count comes from the start of the epoch
