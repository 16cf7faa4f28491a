"""A whole training step as one CUDA graph, which is replayed for every full batch of an epoch.

Starting the kernels of a step one by one keeps the host busy for as long as the device computes. The graph contains
everything: gathering and augmenting the images, the passes, the optimiser and the sums. The order, partners and crops
of an epoch are copied to the device at its start, and a cursor on the device names the rows of the next batch.
"""

from collections.abc import Callable

import torch
from torch import nn

from cskd.batch import Batch
from cskd.data.loader import EpochDraws, TrainLoader

WARM_UP_STEPS = 3  # in which libraries choose their kernels and allocate; a capture must not do that


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
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        momenta = {parameter: state["momentum_buffer"].clone() for parameter, state in optimizer.state.items()}
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
        model.load_state_dict(weights)
        for parameter, state in optimizer.state.items():
            # The first step of SGD makes the momentum the gradient, which it also does from zeros.
            state["momentum_buffer"].copy_(momenta.get(parameter, torch.zeros((), device=self.loader.device)))
        self.replay = graph.replay
