"""The training loop, top to bottom in order of execution."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cskd.data.loader import Normalise, TestSet, TrainLoader
from cskd.data.splits import choose
from cskd.evaluate.metrics import evaluate_predictions
from cskd.evaluate.predictions import Predictions
from cskd.methods import Method
from cskd.train.checkpoint import Checkpoints
from cskd.train.precision import autocast
from cskd.train.step import Step
from cskd.utils.errors import UserError
from cskd.utils.seeding import generator


@dataclass(frozen=True)
class Schedule:
    """SGD and how its learning rate falls. The defaults are the paper's."""

    epochs: int = 200
    lr: float = 0.1
    milestones: tuple[int, ...] = (100, 150)  # after this many epochs ...
    factor: float = 0.1  # ... the rate is multiplied by this
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4  # on every parameter, BatchNorm's and biases too

    def rate(self, epoch: int) -> float:
        """The learning rate during an epoch, counted from 0."""
        return self.lr * self.factor ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for a progress bar or a heartbeat. Made after every step."""

    epoch: int
    step: int
    steps: int  # in one epoch
    images: int  # seen in this epoch


class Interrupted(Exception):
    """The run was asked to stop and did, at a safe point. The last checkpoint holds its state."""


class Diverged(Exception):
    """The loss is no longer finite."""


class Trainer:
    """One run: a network, a method, its data. ``run()`` trains from the checkpoint, or from the start.

    teacher: a trained network for methods that need one: it is frozen, stays in evaluation mode, and is no part
    of the checkpoint.
    evaluated: what ``test_set`` is, "test" or "validation"; its metrics are named after it.
    domains: the domain of each class, for metrics of each domain; None where there are none.
    checkpoint: file to keep the state in (see cskd.train.checkpoint); None keeps none. ``damage`` says what was damaged.
    known_epochs: how many epochs are recorded elsewhere, as ``Checkpoints.latest`` wants to know.
    identity: a text that must be the same when a checkpoint is taken up again (the run key).
    before_replace: called right before a checkpoint is put in its place; what it raises keeps those that are there.
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
        evaluated: str = "test",
        domains: tuple[str, ...] | None = None,
        checkpoint: Path | None = None,
        known_epochs: int | None = None,
        identity: str = "",
        before_replace: Callable[[], None] = lambda: None,
    ):
        self.model = model.to(device, memory_format=torch.channels_last)
        self.method, self.loader, self.test_set = method, train_loader, test_set
        self.normalise, self.schedule = normalise, schedule
        self.seed, self.device, self.precision = seed, device, precision
        if teacher is None and method.needs_teacher:
            raise ValueError(f"{method.name} needs a teacher")
        if teacher is not None:
            teacher.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.evaluated, self.domains = evaluated, domains
        self.checkpoints = Checkpoints(checkpoint, identity, before_replace)
        self.pending_metrics: list[
            dict[str, float]
        ] = []  # metrics of the latest epochs, which on_epoch was not called for
        self.step = Step(model, method, normalise, precision, device, teacher)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=schedule.lr,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            weight_decay=schedule.weight_decay,
            fused=device.type == "cuda",  # on a CPU it rounds in another way and gains nothing
        )
        self.next_epoch = self._restore(known_epochs)

    def run(
        self,
        *,
        on_epoch: Callable[[int, dict[str, float]], None],
        on_step: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Predictions:
        """Train to the last epoch; return the test predictions after it.

        on_epoch(epoch, metrics) is called once the epoch is in a checkpoint, which may be some epochs later where
        these are short. Taking a checkpoint up calls it for that checkpoint's epochs again, in case the process died
        between the two: what it does must be harmless the second time. Metrics are named ``train/...``,
        ``test/...`` or ``validation/...`` (errors, ECE and R@1 in percent), ``time/...`` (seconds). R@1 is in the
        last epoch's only.

        Raises Interrupted soon after ``should_stop()`` is true, and Diverged for a loss that is not finite.
        """
        self._flush_metrics(on_epoch, self.next_epoch)
        if self.next_epoch >= self.schedule.epochs:
            return self.predict(should_stop)
        for epoch in range(self.next_epoch, self.schedule.epochs):
            started = time.perf_counter()
            metrics = self.train_epoch(epoch, on_step, should_stop)
            trained = time.perf_counter()
            try:
                predictions = self.predict(should_stop)
            except Diverged as error:
                raise Diverged(f"{error} after epoch {epoch + 1}, lr {metrics['train/lr']:g}") from error
            last = epoch + 1 == self.schedule.epochs
            features = predictions.features if last else None
            tested = evaluate_predictions(predictions.logits, predictions.labels, features, self.domains)
            metrics |= {f"{self.evaluated}/{name}": value for name, value in tested.items()}
            metrics["time/train_seconds"] = trained - started
            metrics["time/test_seconds"] = time.perf_counter() - trained
            metrics["time/images_per_second"] = len(self.loader.split) / (trained - started)
            self.pending_metrics.append(metrics)
            if last or self.checkpoints.is_due():
                self._save(epoch + 1)
                self._flush_metrics(on_epoch, epoch + 1)
        return predictions

    @property
    def damage(self) -> list[str]:
        """What was damaged of the checkpoints that were to be taken up."""
        return self.checkpoints.damage

    def train_epoch(
        self,
        epoch: int,
        on_step: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, float]:
        """One pass over the training images, counted from 0; returns its ``train/...`` metrics. See ``run``."""
        self.model.train()
        rate = self.schedule.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        draws = generator(self.seed, "transform", epoch)
        terms = self.step.terms
        # Sums stay on the device and are read once an epoch: loss, each term, wrong answers. A loss that is not finite
        # leaves its sum so for good, so that counting the steps until then tells which it was.
        sums = torch.zeros(len(terms) + 2, dtype=torch.float64, device=self.device)
        finite_steps = torch.zeros((), dtype=torch.int64, device=self.device)
        seen = 0
        for number, raw in enumerate(self.loader.epoch(epoch)):
            if should_stop():
                raise Interrupted
            batch = self.method.transform(raw, draws)
            loss, message = self.step(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            sums += message
            finite_steps += sums[0].isfinite()
            seen += len(batch.labels)
            on_step(Progress(epoch, number + 1, len(self.loader), seen))
        means = (sums / seen).tolist()
        metrics = {
            "train/loss": means[0],
            **{f"train/{term.name}": mean for term, mean in zip(terms, means[1:-1], strict=True)},
            "train/top1_error": 100 * means[-1],
            "train/lr": rate,
        }
        if not math.isfinite(means[0]):
            message = ", ".join(f"{name.removeprefix('train/')} {value:g}" for name, value in metrics.items())
            raise Diverged(f"the loss is not finite from epoch {epoch + 1}, step {int(finite_steps) + 1} on: {message}")
        return metrics

    def compile(self) -> None:
        """Compile the training step for full batches; whatever the compiler lacks here is raised here."""
        self.model.train()
        example = self.loader.blank_batch()
        self.step.compile(self.method.transform(example, generator(self.seed, "compile")))

    def predict(self, should_stop: Callable[[], bool] = lambda: False) -> Predictions:
        """The test set through the network in evaluation mode. Raises Interrupted and Diverged as ``run``."""
        logits, features = self._through(self.test_set.batches(), should_stop)
        tests = self.test_set
        return Predictions(logits, features, tests.labels.cpu().numpy(), tests.indices, tests.classes)

    def predict_training(self, most: int = 5000, should_stop: Callable[[], bool] = lambda: False) -> Predictions:
        """Training images without augmentation, as the test set is seen: all, or ``most``, the same for every run."""
        split = self.loader.split
        indices = choose(len(split), min(most, len(split)), "training predictions")
        logits, features = self._through(self.loader.clean_batches(indices, self.test_set.batch_size), should_stop)
        return Predictions(logits, features, split.labels[indices], indices, self.test_set.classes)

    @torch.no_grad()
    def _through(self, batches: Iterable[Tensor], should_stop: Callable[[], bool]) -> tuple[np.ndarray, np.ndarray]:
        """(logits, features) of batches of images in evaluation mode."""
        self.model.eval()
        parts = []
        for images in batches:
            if should_stop():
                raise Interrupted
            parts += self._evaluated(images)
        logits, features = map(torch.cat, zip(*parts, strict=True))
        if not torch.isfinite(logits).all():
            raise Diverged(f"the network's {self.evaluated} predictions are not finite")
        return logits.cpu().numpy(), features.cpu().numpy()

    def _evaluated(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(logits, features) of a batch; in parts where the device has no room for all of it."""
        try:
            with autocast(self.precision, self.device):
                pooled = self.model.backbone(self.normalise(images))
                return [(self.model.head(pooled).float(), pooled.float())]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        return [part for half in images.chunk(2) for part in self._evaluated(half)]

    def _restore(self, known_epochs: int | None) -> int:
        """Take the latest usable checkpoint up; return the epoch to go on with. 0 without one."""
        found = self.checkpoints.latest(known_epochs)
        if found is None:
            return 0
        file, state = found
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.pending_metrics = state["metrics"]
            return state["next_epoch"]
        except (RuntimeError, KeyError, ValueError) as error:
            message = f"the checkpoint {file} does not fit the network ({type(error).__name__})"
            raise UserError(f"{message}: remove it to start this run anew") from error

    def _save(self, next_epoch: int) -> None:
        self.checkpoints.write(
            {
                "next_epoch": next_epoch,
                "metrics": self.pending_metrics,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def _flush_metrics(self, on_epoch: Callable[[int, dict[str, float]], None], next_epoch: int) -> None:
        """Of the epochs before this one that nobody was told of."""
        first = next_epoch - len(self.pending_metrics)
        for number, metrics in enumerate(self.pending_metrics):
            on_epoch(first + number, metrics)
        self.pending_metrics = []
