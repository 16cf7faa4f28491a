"""Small trainers on noise images, for tests of training."""

import numpy as np
import pytest
import torch
from arrays import random_split

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import build_method
from cskd.models import build_model
from cskd.train.distributed import SINGLE
from cskd.train.schedule import Schedule
from cskd.train.trainer import Interrupted, Trainer
from cskd.utils.seeding import derived_seed

CPU = torch.device("cpu")
SCHEDULE = Schedule(epochs=4, lr=0.1, milestones=(2, 3))
ADAMW = Schedule(epochs=3, lr=0.001, kind="cosine", milestones=(), warmup_epochs=1, optimizer="adamw")
FIXED, MIXED = (8, 8), None  # sizes of images


def make_trainer(
    folder=None, *, method="cs-kd", architecture="resnet10", schedule=SCHEDULE, precision="fp32", identity="run",
    size=FIXED, device=CPU, resizing=None, images=42, tests=20, batch_size=16, seed=0, replicas=SINGLE,
):  # fmt: skip
    built = build_method(method)
    torch.manual_seed(derived_seed(0, "init"))
    model = build_model(architecture, 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary)
    augmentation = PadAndCrop(8, 1) if size == FIXED else ResizedCrop(8)
    center_crop = CenterCrop(8, 9 if size == MIXED else None)
    train, test = random_split(images, 4, size=size), random_split(tests, 4, size=size, seed=1)
    data = {"batch_size": batch_size, "device": device, "resizing": resizing}
    return Trainer(
        model,
        built,
        TrainLoader(train, augmentation, center_crop, views=built.views, seed=seed, **data),
        TestSet(test, center_crop, replica=replicas, **data),
        Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), device),
        schedule,
        seed=seed,
        device=device,
        precision=precision,
        teacher=build_model("resnet10", 4, 8, width=4) if built.needs_teacher else None,
        checkpoint=None if folder is None else folder / "checkpoint.pt",
        identity=identity,
        replicas=replicas,
    )


def run(trainer, stop_in=None):
    """Return (metrics of all recorded epochs without times, predictions); stop in the middle of epoch ``stop_in``."""
    recorded, steps = [], []

    def on_checkpoint(records):
        assert [record["epoch"] for record in records] == list(range(len(records)))
        recorded[:] = records

    def should_stop():
        return sum(step.epoch == stop_in for step in steps) >= 2

    predictions = None
    if stop_in is None:
        predictions = trainer.run(on_checkpoint=on_checkpoint)
    else:
        with pytest.raises(Interrupted):
            trainer.run(on_checkpoint=on_checkpoint, on_step=steps.append, should_stop=should_stop)
    metrics = [
        {name: value for name, value in record["metrics"].items() if not name.startswith("time/")}
        for record in recorded
    ]
    return metrics, predictions


def assert_same(predictions, expected):
    for name in ("logits", "features", "labels"):
        assert np.array_equal(getattr(predictions, name), getattr(expected, name))
