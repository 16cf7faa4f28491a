"""The steps of an epoch: kernel by kernel, compiled, or as replays of a captured graph.

On a GPU, starting the kernels of a step one by one keeps the host busy for as long as the device computes. A CUDA graph
of the whole step is started once: it gathers and augments the images, makes the passes and the optimiser's step, and
adds to the sums. The order, partners and crops of an epoch are copied to the device at its start, and a cursor on the
device names the rows of the next batch.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn

from cskd.batch import Batch
from cskd.data.loader import EpochDraws, TrainLoader
from cskd.methods.base import Method
from cskd.train.distributed import DistributedStep, Replicas
from cskd.train.step import Step
from cskd.utils.seeding import derived_seed, generator

WARM_UP_STEPS = 3  # in which libraries choose their kernels and allocate; a capture must not do that


class Steps:
    """Trains on the batches of an epoch. Nothing waits for the device before ``sums_and``."""

    def __init__(
        self,
        loader: TrainLoader,
        method: Method,
        step: Step | DistributedStep,
        optimizer: torch.optim.Optimizer,
        seed: int,
        device: torch.device,
        replicas: Replicas,
    ):
        self.loader, self.method, self.step, self.optimizer = loader, method, step, optimizer
        self.seed, self.device, self.replicas = seed, device, replicas
        # Once a loss is not finite, the sum of the losses stays so: ``finite_steps`` counts the steps before.
        self._sums = torch.zeros(len(step.terms) + 2, dtype=torch.float64, device=device)
        self._finite_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.captured: CapturedSteps | None = None

    def epoch(self, number: int, check: Callable[[], None]) -> Iterator[int]:
        """Yield the number of images that each step has trained on. check: called before each step."""
        # networks of other libraries may have dropout
        torch.manual_seed(derived_seed(self.seed, self.replicas.stream("dropout"), number))
        return (self._eager if self.captured is None else self._replayed)(number, check)

    def sums_and(self, images: int) -> Tensor:
        """Return the sums of the loss, its terms and wrong answers, the steps with a finite loss, and ``images``."""
        return torch.cat([self._sums.cpu(), torch.tensor([self._finite_steps, images], dtype=torch.float64)])

    def compile(self, model: nn.Module) -> None:
        """Compile a step for full batches. On a GPU, capture it as one graph, if all of it can be.

        After an exception, steps are eager, and network and optimiser are in the state in which they were.
        """
        captures = self.device.type == "cuda" and self.can_be_captured()
        example = self._transformed(self.loader.blank_batch(), generator(self.seed, "compile"))
        self.step.compile(example, graphs=not captures)
        if captures:
            captured = self.capturable()
            try:
                captured.capture(model, self.optimizer)
            except BaseException:
                self.step.stay_eager()
                self.optimizer.load_state_dict(state_of(self.optimizer))  # its learning rates are numbers again
                raise
            self.captured = captured

    def can_be_captured(self) -> bool:
        """Return True if nothing in a step is drawn or resized on the CPU, or sent to other processes."""
        return (
            self.loader.is_resident
            and len(self.loader.split) >= self.loader.batch_size
            and not self.method.has_transform
            and isinstance(self.optimizer, torch.optim.SGD)
            and self.replicas.count == 1
        )

    def capturable(self) -> "CapturedSteps":
        """Return the steps that read their batches at a cursor, not yet captured."""
        return CapturedSteps(self.loader, self._train_on, self._zero_sums)

    def _eager(self, number: int, check: Callable[[], None]) -> Iterator[int]:
        stream = "transform" if self.method.mixes_labels else self.replicas.stream("transform")
        draws = generator(self.seed, stream, number)
        self._zero_sums()
        for raw in self.loader.epoch(number):
            check()
            batch = self._transformed(raw, draws)
            self._train_on(batch)
            yield len(batch.labels) if batch.weight else 0

    def _replayed(self, number: int, check: Callable[[], None]) -> Iterator[int]:
        self.captured.start_epoch(self.loader.draw(number))
        for _ in range(self.captured.full_batches):
            check()
            self.captured.replay()
            yield self.loader.batch_size
        if self.captured.remaining:
            check()
            self._train_on(self.captured.last_batch())
            yield self.captured.remaining

    def _train_on(self, batch: Batch) -> None:
        loss, step_sums = self.step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self._sums += step_sums
        self._finite_steps += self._sums[0].isfinite()

    def _zero_sums(self) -> None:
        self._sums.zero_()
        self._finite_steps.zero_()

    def _transformed(self, batch: Batch, draws: Generator) -> Batch:
        """Return the transformed batch, or this replica's part of it."""
        batch = self.method.transform(batch, draws)
        return batch.part(self.replicas) if self.method.mixes_labels else batch


class CapturedSteps:
    """The full batches of an epoch: ``start_epoch(draws)``, then ``replay()`` for each of ``full_batches``.

    loader: one with resident images. train_on: trains on a batch; everything that it reads and writes stays at its
    place on the device. reset: makes the sums of an epoch zero.
    """

    def __init__(self, loader: TrainLoader, train_on: Callable[[Batch], None], reset: Callable[[], None]):
        self.loader, self._train_on, self._reset = loader, train_on, reset
        self.full_batches, self.remaining = divmod(len(loader.split), loader.batch_size)
        self.draws = loader.draw(0).to(loader.device)
        self._cursor = torch.zeros((), dtype=torch.long, device=loader.device)
        self._offsets = torch.arange(loader.batch_size, device=loader.device)
        self.replay: Callable[[], None] = self.step_once

    def step_once(self) -> None:
        """Train on the batch at the cursor, kernel by kernel."""
        self._train_on(self.loader.batch(self.draws, self._cursor + self._offsets))
        self._cursor += self.loader.batch_size

    def start_epoch(self, draws: EpochDraws) -> None:
        self.draws.copy_(draws)
        self._cursor.zero_()
        self._reset()

    def last_batch(self) -> Batch:
        """Return the images that are left after the full batches."""
        return self.loader.batch(self.draws, slice(-self.remaining, None))

    def capture(self, model: nn.Module, optimizer: torch.optim.SGD) -> None:
        """Capture the step. Network and optimiser end in the state in which they were, at the same place in memory.

        The learning rates become tensors: set them in place, with ``set_rate``.
        """
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=self.loader.device)
            for parameter in group["params"]:
                # The first step of SGD makes the momentum the gradient, which it also does from zeros.
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        trained = [*model.state_dict().values(), *momenta]
        before = [tensor.clone() for tensor in trained]
        try:
            self.replay = self._captured()
        finally:
            for tensor, value in zip(trained, before, strict=True):
                tensor.copy_(value)

    def _captured(self) -> Callable[[], None]:
        """Return the replay of the captured step. This trains for a few steps."""
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(WARM_UP_STEPS):
                self.start_epoch(self.draws)
                self.step_once()
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step_once()
        return graph.replay


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; of captured steps in place, since their graph reads it there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def state_of(optimizer: torch.optim.Optimizer) -> dict:
    """Return the optimiser's state dict, with learning rates that are numbers."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}
