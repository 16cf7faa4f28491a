"""Runs the released code's own training loop, a few steps at a time: python released.py CLONE --batch-size 128 ...

This script imports nothing of this suite, since modules such as ``models`` and ``utils`` are the clone's. It prints
"ready", and then the seconds per step for every line of its input.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

SIZE = 32
AHEAD = 8  # batches that its four workers prefetch: uncounted steps, and further batches after the counted ones


class TurnEnded(Exception):
    """Raised after the counted steps, to leave the training loop."""


class Stopwatch:
    """Replaces the progress bar, which the loop calls at the end of every step."""

    def __init__(self, steps: int):
        self.steps, self.started, self.seconds = steps, 0.0, 0.0

    def __call__(self, current: int, total: int, message: str | None = None) -> None:
        if current == AHEAD - 1:
            self.started = self._now()
        elif current == AHEAD - 1 + self.steps:
            self.seconds = (self._now() - self.started) / self.steps
            raise TurnEnded

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def noise_dataset(train_images: int, classes: int) -> type:
    """Return a dataset class of noise images that replaces torchvision's CIFAR100."""

    class Noise(torch.utils.data.Dataset):
        def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
            count = train_images if train else classes
            self.data = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
            self.targets = [index % classes for index in range(count)]
            self.train_labels = self.test_labels = self.targets  # the released code takes torchvision 0.2x for 0.2
            self.train, self.transform, self.target_transform = train, transform, target_transform

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            image = Image.fromarray(self.data[index])
            return self.transform(image) if self.transform else image, self.targets[index]

    return Noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--temperature", type=float, help="of cs-kd; default: train with cross-entropy")
    parser.add_argument("--weight", type=float, default=1.0, help="lambda_cls")
    options = parser.parse_args()
    # The released code prints to stdout: answers to the parent use a copy of it, and stdout becomes stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(options.threads)
    stopwatch = Stopwatch(options.steps)
    batches = AHEAD + options.steps + AHEAD
    torchvision.datasets.CIFAR100 = noise_dataset(max(options.classes, batches * options.batch_size), options.classes)
    utils = types.ModuleType("utils")  # the original asks a terminal for its width and logs into a folder
    utils.progress_bar, utils.set_logging_defaults = stopwatch, lambda logdir, args: None
    sys.modules["utils"] = utils
    sys.path[0] = str(options.clone)
    logging.disable()
    with tempfile.TemporaryDirectory() as saved:
        sys.argv = [
            *("train.py", "--dataset", "cifar100", "--model", "CIFAR_ResNet18", "--epoch", "0"),
            *("--batch-size", str(options.batch_size), "--saveroot", saved, "--dataroot", saved),
        ]
        if options.temperature is not None:
            sys.argv += ["--cls", "--temp", str(options.temperature), "--lamda", str(options.weight)]
        path = options.clone / "train.py"
        code = {"__name__": "__main__", "__file__": str(path)}
        exec(compile(path.read_bytes(), path, "exec"), code)  # noqa: S102 - the clone that the user names
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            ended = False
            try:
                code["train"](int(line))
            except TurnEnded:
                ended = True
            if not ended:
                raise RuntimeError("train() ended before the counted steps were done")
            # Outside of the except block the loop's workers have ended, so they cannot slow down the next turn.
            print(stopwatch.seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
