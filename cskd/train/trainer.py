"""The training loop, in order of execution."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.evaluate.metrics import evaluate_predictions
from cskd.evaluate.predictions import Predictions
from cskd.methods.base import Method
from cskd.train.checkpoint import Checkpoints
from cskd.train.distributed import SINGLE, Replicas
from cskd.train.precision import autocast
from cskd.train.schedule import Schedule
from cskd.train.step import Step
from cskd.train.steps import Steps, set_rate, state_of
from cskd.utils.errors import UserError
from cskd.utils.seeding import choose

Outputs = tuple[Tensor, Tensor]  # logits (N, C) and pooled features (N, D) in float32, on the device
Record = dict[str, Any]  # one epoch: {"epoch": from 0, "timestamp": unix seconds, "metrics": {name: value}}


@dataclass(frozen=True)
class Progress:
    """The position of a run after a step."""

    epoch: int
    step: int
    steps: int  # in an epoch
    images: int  # trained on in this epoch


class Interrupted(Exception):
    """The run stopped on request. The last checkpoint holds its state."""


class Diverged(Exception):
    """The loss is not finite."""


class Trainer:
    """One run: a network, a method, its data. ``run`` trains from the checkpoint, or from epoch 0.

    Args:
        teacher: a trained network for methods that need one. It is frozen, and not part of the checkpoint.
        eval_split: "test" or "validation": what ``test_set`` holds, and the prefix of its metrics.
        domains: the domain of each class, for metrics per domain.
        unused: makes the set of training images that the run does not train on; None if there are none.
        near_ood: makes the set of test images of classes that the run does not train on; None if there are none.
        checkpoint: the file of the checkpoint (see cskd.train.checkpoint); None neither writes nor restores one.
        identity: a text that must be the same when a checkpoint is restored (the run key).
        before_replace: called before a checkpoint is replaced; if it raises, the old ones stay.
        replicas: of a run on several devices. Each has a trainer with the same arguments, apart from the device, the
            test set, which is a replica's, and callbacks. Only the first one computes test metrics and writes
            checkpoints.

    Attributes:
        records: the records of all trained epochs, including those before a resume.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        train_loader: TrainLoader,
        test_set: TestSet,
        normalise: Normalise,
        schedule: Schedule,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        teacher: nn.Module | None = None,
        eval_split: str = "test",
        domains: tuple[str, ...] | None = None,
        unused: Callable[[], TestSet] | None = None,
        near_ood: Callable[[], TestSet] | None = None,
        checkpoint: Path | None = None,
        identity: str = "",
        before_replace: Callable[[], None] = lambda: None,
        replicas: Replicas = SINGLE,
    ):
        self.model = model.to(device, memory_format=torch.channels_last)
        self.method, self.loader, self.test_set = method, train_loader, test_set
        self.normalise, self.schedule = normalise, schedule
        self.seed, self.device, self.precision, self.replicas = seed, device, precision, replicas
        if not method.mixes_labels:  # a batch is mixed as a whole, and then divided
            train_loader.replica = replicas
        if teacher is None and method.needs_teacher:
            raise ValueError(f"{method.name} needs a teacher")
        if teacher is not None:
            teacher.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.eval_split, self.domains, self.unused, self.near_ood = eval_split, domains, unused, near_ood
        self.step = replicas.wrap(Step(self.model, method, normalise, precision, device, teacher))
        self.optimizer = schedule.make_optimizer(model, device)
        self.steps = Steps(train_loader, method, self.step, self.optimizer, seed, device, replicas)
        self.checkpoints = Checkpoints(checkpoint, identity, before_replace)
        with replicas.first_before_others():  # the first one removes damaged checkpoints
            self.records: list[Record] = self._restore()

    @property
    def next_epoch(self) -> int:
        return len(self.records)

    def run(
        self,
        *,
        on_checkpoint: Callable[[list[Record]], None] = lambda records: None,
        on_step: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        extra_metrics: Callable[[], dict[str, float]] = dict,
    ) -> Predictions:
        """Train to the last epoch and return the test predictions.

        Args:
            on_checkpoint: receives the records of all epochs so far, before the first step and after each checkpoint.
            on_step: called after each step.
            should_stop: called before each step; True raises Interrupted, on all replicas.
            extra_metrics: returns metrics to record with each epoch.

        Metrics are named ``train/...``, ``test/...`` or ``validation/...`` (errors, ECE and R@1 in percent) and
        ``time/...`` (seconds). R@1 is computed in the last epoch only.

        Raises:
            Interrupted: ``should_stop()`` was true.
            Diverged: the loss or a prediction is not finite.
        """
        on_checkpoint(self.records)
        if self.next_epoch >= self.schedule.epochs:
            return self.predict(should_stop)
        for epoch in range(self.next_epoch, self.schedule.epochs):
            started = time.perf_counter()
            metrics = self.train_epoch(epoch, on_step, should_stop)
            trained = time.perf_counter()
            last = epoch + 1 == self.schedule.epochs
            try:
                tested, outputs = self.evaluate(should_stop, with_features=last)
            except Diverged as error:
                raise Diverged(f"{error} after epoch {epoch + 1}, lr {metrics['train/lr']:g}") from error
            metrics |= tested
            metrics["time/train_seconds"] = trained - started
            metrics["time/test_seconds"] = time.perf_counter() - trained
            metrics["time/images_per_second"] = len(self.loader.split) / (trained - started)
            metrics |= extra_metrics()
            self.records.append({"epoch": epoch, "timestamp": round(time.time(), 3), "metrics": metrics})
            if last or self.checkpoints.is_due():
                self._save()
                on_checkpoint(self.records)
        return _predictions(self.test_set, outputs)

    def train_epoch(
        self,
        epoch: int,
        on_step: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, float]:
        """Train on all images once; return the ``train/...`` metrics of the epoch, which is counted from 0."""
        self.model.train()
        rate = self.schedule.rate(epoch)
        set_rate(self.optimizer, rate)
        seen = 0
        for number, images in enumerate(self.steps.epoch(epoch, partial(self._check, should_stop))):
            seen += images
            on_step(Progress(epoch, number + 1, len(self.loader), seen))
        *totals, finite_steps, seen = self.replicas.sum(self.steps.sums_and(seen)).tolist()
        means = [total / seen for total in totals]
        metrics = {
            "train/loss": means[0],
            **{f"train/{term.name}": mean for term, mean in zip(self.step.terms, means[1:-1], strict=True)},
            "train/top1_error": 100 * means[-1],
            "train/lr": rate,
        }
        if not math.isfinite(means[0]):
            values = ", ".join(f"{name.removeprefix('train/')} {value:g}" for name, value in metrics.items())
            # The step after the first loss that is not finite is not finite on any replica.
            step = int(finite_steps) // self.replicas.count + 1
            raise Diverged(f"the loss is not finite from epoch {epoch + 1}, step {step} on: {values}")
        return metrics

    def _check(self, should_stop: Callable[[], bool]) -> None:
        if self.replicas.any(should_stop()):
            raise Interrupted

    def compile(self) -> None:
        """Compile the training step for full batches, and capture it on a GPU. Raises the compiler's exceptions."""
        self.model.train()
        self.steps.compile(self.model)

    def evaluate(
        self, should_stop: Callable[[], bool] = lambda: False, *, with_features: bool = False
    ) -> tuple[dict[str, float], Outputs]:
        """Return the metrics of the test set, {} on other replicas than the first, and the outputs for its images.

        Both are computed on the device, the metrics in float64. Raises Interrupted and Diverged as ``run``.
        """
        outputs = self._outputs(self.test_set, should_stop)
        if not self.replicas.is_first:
            return {}, outputs
        logits, features = outputs
        tested = evaluate_predictions(logits, self.test_set.labels, features if with_features else None, self.domains)
        return {f"{self.eval_split}/{name}": value for name, value in tested.items()}, outputs

    def predict(self, should_stop: Callable[[], bool] = lambda: False) -> Predictions:
        """Return the predictions of the test set. Raises Interrupted and Diverged as ``run``."""
        return self._predict(self.test_set, should_stop)

    def predict_unused(self, should_stop: Callable[[], bool] = lambda: False) -> Predictions | None:
        """Return the predictions of training images that the run did not train on; None if there are none."""
        return None if self.unused is None else self._predict(self.unused(), should_stop)

    def predict_near_ood(self, should_stop: Callable[[], bool] = lambda: False) -> Predictions | None:
        """Return the predictions of test images of classes that the run does not train on; None if there are none."""
        return None if self.near_ood is None else self._predict(self.near_ood(), should_stop)

    def predict_training(self, max_images: int = 5000, should_stop: Callable[[], bool] = lambda: False) -> Predictions:
        """Return the predictions of training images without augmentation; the same images in every run."""
        split, test_set = self.loader.split, self.test_set
        chosen = split.select(choose(len(split), min(max_images, len(split)), "training predictions"))
        data = {"batch_size": test_set.batch_size, "device": self.device, "classes": test_set.classes}
        return self._predict(TestSet(chosen, self.loader.clean, replica=self.replicas, **data), should_stop)

    def _predict(self, images: TestSet, should_stop: Callable[[], bool]) -> Predictions:
        return _predictions(images, self._outputs(images, should_stop))

    @torch.no_grad()
    def _outputs(self, images: TestSet, should_stop: Callable[[], bool]) -> Outputs:
        """Return the outputs in evaluation mode. Each replica evaluates its share of the images."""
        self.model.eval()
        self.replicas.share_buffers(self.model)
        parts = []
        for batch in images.batches():
            self._check(should_stop)
            parts += self._evaluate_batch(batch)
        shares = map(torch.cat, zip(*parts, strict=True))
        logits, features = (self.replicas.gather(share, len(images.labels)) for share in shares)
        if not torch.isfinite(logits).all():
            raise Diverged(f"the network's {self.eval_split} predictions are not finite")
        return logits, features

    def _evaluate_batch(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (logits, features) of a batch, in halves if the device has too little memory for it."""
        try:
            with autocast(self.precision, self.device):
                pooled = self.model.backbone(self.normalise(images))
                return [(self.model.head(pooled).float(), pooled.float())]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        return [part for half in images.chunk(2) for part in self._evaluate_batch(half)]

    def _restore(self) -> list[Record]:
        """Restore the latest checkpoint; return its records, [] if there is none."""
        latest = self.checkpoints.latest()
        if latest is None:
            return []
        file, state = latest
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            return state["records"]
        except (RuntimeError, KeyError, ValueError) as error:
            message = f"the checkpoint {file} does not fit the network ({type(error).__name__})"
            raise UserError(f"{message}: remove it to start this run again") from error

    def _save(self) -> None:
        if not self.replicas.is_first:
            return
        model, optimizer = self.model.state_dict(), state_of(self.optimizer)
        self.checkpoints.write({"records": self.records, "model": model, "optimizer": optimizer})


def _predictions(images: TestSet, outputs: Outputs) -> Predictions:
    arrays = (values.cpu().numpy() for values in (*outputs, images.labels))
    return Predictions(*arrays, images.indices, images.classes)
