"""One training step's arithmetic up to the loss, as it is or compiled: tensors in, tensors out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cskd.data.loader import Batch, Normalise
from cskd.methods import Method
from cskd.methods.base import ForwardCache
from cskd.train.precision import autocast


class Step:
    """What a batch comes to under a method: ``loss, sums = step(batch)``.

    loss: (), to call backward() on. sums: float64 (2 + terms), without gradient: the loss, each term, and the share
    of wrong answers, each times the number of images. Nothing in here waits for the device.
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
        self.model, self.normalise, self.teacher = model, normalise, teacher
        self.terms = method.terms()
        self.precision, self.device = precision, device
        self._compiled: Callable[[Batch], tuple[Tensor, Tensor]] | None = None
        self._size: int | None = None  # of the batches that the compiled one is for

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        # An epoch's last batch is smaller: compiling it as well would take longer than it ever gains.
        if self._compiled is None or len(batch.labels) != self._size:
            return self.eager(batch)
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(batch.views, batch.labels, batch.targets, batch.num_classes)

    def eager(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, never compiled."""
        return self._evaluate(batch.views, batch.labels, batch.targets, batch.num_classes)

    def _evaluate(
        self, views: dict[str, Tensor], labels: Tensor, targets: Tensor, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, self.device):
            passes = ForwardCache(self.model, Batch(views, labels, targets, num_classes), self.normalise, self.teacher)
            values = [term.loss(passes) for term in self.terms]
            loss = sum(term.weight * value for term, value in zip(self.terms, values, strict=True))
            logits = passes.logits("x")
        with torch.no_grad():
            message = [loss.detach().double(), *(value.detach().double() for value in values), _wrong(logits, targets)]
            return loss, len(labels) * torch.stack(message)

    def compile(self, example: Batch) -> None:
        """From now on batches of this one's kind and size go through torch.compile, on CUDA as CUDA graphs.

        The example is trained on, forwards and backwards, so that whatever is missing on this machine fails here and
        not later; afterwards the network is as it was. Raises whatever the compiler does.
        """
        # Deterministic: nothing that changes rounding may be chosen by a stopwatch.
        options = {"deterministic": True, "triton.cudagraphs": self.device.type == "cuda"}
        self._compiled = torch.compile(self._evaluate, fullgraph=True, dynamic=False, options=options)
        self._size = len(example.labels)
        kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        try:
            # CUDA graphs are made in the second call, after one to warm up, and replayed from the third on.
            for _ in range(3 if self.device.type == "cuda" else 1):
                loss, _ = self(example)
                self.model.zero_grad(set_to_none=True)
                loss.backward()
        except BaseException:
            self._compiled = None
            raise
        finally:
            self.model.load_state_dict(kept)
            self.model.zero_grad(set_to_none=True)


def _wrong(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of wrong answers, float64 (): of mixed labels (N, C), the share that is not the answered class."""
    answers = logits.argmax(1)
    if targets.dim() == 1:
        return (answers != targets).double().mean()
    return 1 - targets.gather(1, answers[:, None]).double().mean()
