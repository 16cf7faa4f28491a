"""A training step never waits for the device: on torch's device ``meta``, which has no values, reading one raises."""

import contextlib

import pytest
import torch
from arrays import random_split
from stepping import DIFFERENT_METHODS
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import build_method
from cskd.models import build_model
from cskd.train.schedule import Schedule
from cskd.train.trainer import Trainer

META = torch.device("meta")
STEPS = 3


class WaitingCopies(TorchDispatchMode):
    """Counts the copies from the CPU to the device that wait for it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and result.device == META:
            self.count += not kwargs.get("non_blocking", False)
        return result


@pytest.mark.parametrize(
    ("method", "resizing"),
    [*((method, None) for method in DIFFERENT_METHODS), ("cs-kd-e", "resident"), ("cs-kd-e", "streamed")],
)
def test_no_step_waits_for_the_device(method, resizing, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())  # unknown on meta
    built = build_method(method)
    split = random_split(8 * STEPS - 2, 4, size=None if resizing else (8, 8))
    transform, augmentation = (CenterCrop(8, 9), ResizedCrop(8)) if resizing else (CenterCrop(8), PadAndCrop(8, 1))
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
