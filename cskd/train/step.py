"""The training step up to the loss, optionally compiled."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cskd.batch import Batch, Normalise
from cskd.methods.base import ForwardCache, Method
from cskd.train.precision import autocast


class Step(nn.Module):
    """The loss of a batch under a method: ``loss, sums = step(batch)``.

    loss: (), call backward() on it. sums: (2 + terms,) float64 without gradient: the loss, each term, and the share
    of wrong answers, each times the number of images. A step never waits for the device.

    It is a module, so that DistributedDataParallel can wrap it: the passes of a method do not go through the network's
    ``forward``. The teacher is not a part of it, since replicas do not share it.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        normalise: Normalise,
        precision: str,
        device: torch.device,
        teacher: nn.Module | None = None,
    ):
        super().__init__()
        self.model, self.normalise = model, normalise
        self._teacher = (teacher,)  # a tuple, so that it is not registered as a part of this module
        self.terms = method.terms()
        self.precision, self.device = precision, device
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None
        self._compiled_size: int | None = None  # images in a batch
        self._graphs = False  # True if the compiled code replays CUDA graphs of its own

    @property
    def teacher(self) -> nn.Module | None:
        return self._teacher[0]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        # The last batch of an epoch is smaller; compiling for it would cost more time than it saves.
        if self._compiled is None or len(batch.labels) != self._compiled_size:
            return self.eager(batch)
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(batch.views, batch.labels, batch.targets, batch.num_classes)

    def eager(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the result of a call, computed without the compiled code."""
        return self._evaluate(batch.views, batch.labels, batch.targets, batch.num_classes)

    def _evaluate(
        self, views: dict[str, Tensor], labels: Tensor, targets: Tensor, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, self.device):
            cache = ForwardCache(self.model, Batch(views, labels, targets, num_classes), self.normalise, self.teacher)
            values = [term.loss(cache) for term in self.terms]
            loss = sum(term.weight * value for term, value in zip(self.terms, values, strict=True))
            logits = cache.logits("x")
        with torch.no_grad():
            means = [loss.detach().double(), *(value.detach().double() for value in values), _wrong(logits, targets)]
            return loss, len(labels) * torch.stack(means)

    def compile(self, example: Batch, graphs: bool = True) -> None:  # nn.Module's method would compile ``forward``
        """Compile the step for batches of the example's size. graphs: on CUDA, with its own CUDA graphs.

        This runs a forward and backward pass, so that a missing compiler raises here. The network stays unchanged.
        """
        # Deterministic: no kernel that changes rounding may be selected by timing.
        self._graphs = graphs and self.device.type == "cuda"
        options = {"deterministic": True, "triton.cudagraphs": self._graphs}
        self._compiled = torch.compile(self._evaluate, fullgraph=True, dynamic=False, options=options)
        self._compiled_size = len(example.labels)
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        try:
            # CUDA graphs are recorded in the second call, after a warm-up, and replayed from the third on.
            for _ in range(3 if self._graphs else 1):
                loss, _ = self(example)
                self.model.zero_grad(set_to_none=True)
                loss.backward()
        except BaseException:
            self.stay_eager()
            raise
        finally:
            self.model.load_state_dict(state)
            self.model.zero_grad(set_to_none=True)

    def stay_eager(self) -> None:
        """Discard the compiled code."""
        self._compiled = None


def _wrong(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the share of wrong answers, () float64; for mixed labels (N, C), the mean share of all other classes."""
    answers = logits.argmax(1)
    if targets.dim() == 1:
        return (answers != targets).double().mean()
    return 1 - targets.gather(1, answers[:, None]).double().mean()
