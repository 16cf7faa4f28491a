"""Made-up images and their trainers, for the stages of the part ``gpu``: CIFAR-100's size on a GPU, small on a CPU."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.splits import Split
from cskd.data.transforms import CenterCrop, PadAndCrop
from cskd.methods import build_method
from cskd.models import build_model
from cskd.train.precision import resolve
from cskd.train.schedule import Schedule
from cskd.train.trainer import Trainer
from experiments.bench.clone import Clone
from experiments.runs.environment import use_repeatable_kernels

FULL_BATCHES = 10  # of the few images with which stages compare results; half a batch follows


@dataclass(frozen=True)
class Size:
    """What the stages train. train_images, test_images: of a run. steps: counted in a turn. turns: counted."""

    pixels: int
    classes: int
    architecture: str
    width: int
    batch_size: int
    train_images: int
    test_images: int
    steps: int
    turns: int

    @property
    def few_images(self) -> int:
        return FULL_BATCHES * self.batch_size + self.batch_size // 2


LARGE = Size(32, 100, "resnet18", 64, 128, train_images=50_000, test_images=10_000, steps=50, turns=5)
SMALL = Size(8, 4, "resnet10", 4, 16, train_images=72, test_images=40, steps=2, turns=1)


class Lab:
    """The device and the trainers that stages share.

    folder: for files of the stages. clone: of the released code, to be measured beside the suite. compiles: if not,
    steps are eager, and a step that reads its batch at a cursor takes the place of the captured one.
    """

    def __init__(self, device: torch.device, folder: Path, clone: Clone | None = None):
        self.device, self.folder, self.clone = device, folder, clone
        self.compiles = device.type == "cuda"
        self.size = LARGE if self.compiles else SMALL
        self.precision = resolve("auto", device)
        use_repeatable_kernels(self.precision, device)
        self._trainers: dict[tuple[str, bool], Trainer] = {}

    def trainer(self, method: str = "cs-kd", *, few: bool = False) -> Trainer:
        """Return the method's trainer on the images of a run, or on a few; always the same one."""
        if (method, few) not in self._trainers:
            self._trainers[method, few] = self.captured(self.new_trainer(method, few=few))
        return self._trainers[method, few]

    def new_trainer(
        self,
        method: str = "cs-kd",
        *,
        few: bool = True,
        device: torch.device | None = None,
        precision: str = "",
        checkpoint: Path | None = None,
    ) -> Trainer:
        """Return a trainer that is not compiled, for three epochs; by default, with the run's device and precision."""
        size, built, device = self.size, build_method(method), device or self.device
        torch.manual_seed(0)
        model = build_model(
            size.architecture,
            size.classes,
            size.pixels,
            width=size.width,
            build_head=built.build_head,
            build_auxiliary=built.build_auxiliary,
        )
        clean = CenterCrop(size.pixels)
        train = made_up_images(size, size.few_images if few else size.train_images, seed=0)
        test = made_up_images(size, size.test_images // (5 if few else 1), seed=1)
        return Trainer(
            model,
            built,
            self.loader(train, built.views, device),
            TestSet(test, clean, batch_size=size.test_images, device=device),
            Normalise((0.5,) * 3, (0.25,) * 3, device),
            Schedule(epochs=3, lr=0.05, milestones=(2,)),
            seed=0,
            device=device,
            precision=precision or self.precision,
            checkpoint=checkpoint,
        )

    def loader(self, train: Split, views: frozenset[str], device: torch.device) -> TrainLoader:
        augmentation, clean = PadAndCrop(self.size.pixels, 4), CenterCrop(self.size.pixels)
        return TrainLoader(
            train, augmentation, clean, views=views, batch_size=self.size.batch_size, seed=0, device=device
        )

    def captured(self, trainer: Trainer) -> Trainer:
        """Return the trainer with a compiled and captured step, or, without compilation, with one at a cursor."""
        trainer.model.train()
        if self.compiles:
            trainer.compile()
        else:
            trainer.steps.captured = trainer.steps.capturable()
        return trainer


def made_up_images(size: Size, count: int, seed: int) -> Split:
    """Return images of noise, whose colour depends on the class."""
    labels = np.arange(count) % size.classes
    pixels = np.random.default_rng(seed).integers(0, 128, (count, size.pixels, size.pixels, 3), dtype=np.uint8)
    colours = labels[:, None] * (1, 7, 31) % size.classes * 127 // size.classes
    pixels += colours.astype(np.uint8)[:, None, None]
    return Split.prepared(pixels.ravel(), labels, np.full((count, 2), size.pixels, dtype=np.int32))
