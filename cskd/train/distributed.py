"""Training on several devices: a process and a copy of the network for each, kept equal by DistributedDataParallel.

As with ``nn.DataParallel``, which the paper's released code uses, each replica computes its own BatchNorm statistics,
and the first replica's running statistics are kept. A batch is divided among the replicas (see cskd.batch.Replica).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cskd.batch import Batch, Replica

TIMEOUT = timedelta(minutes=30)  # of a replica that waits for the others, such as while the first one evaluates


@dataclass(frozen=True)
class Replicas(Replica):
    """The replicas of a run, as seen by one of them. The default is a run with a single one, without communication.

    All replicas must call the methods in the same order.
    """

    @classmethod
    def join(cls) -> "Replicas":
        """Join the processes that torchrun has started. On GPUs they exchange tensors by nccl, on CPUs by gloo."""
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        """Close the connections to the other replicas."""
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def stream(self, name: str) -> str:
        """Return the name of this replica's own stream of random numbers; the first has that of a single one."""
        return name if self.is_first else f"{name}/{self.rank}"

    def wrap(self, step: nn.Module) -> "nn.Module | DistributedStep":
        """Return the step (a ``Step``), with gradients that are averaged over the replicas."""
        return step if self.count == 1 else DistributedStep(step)

    def any(self, flag: bool) -> bool:
        """Return True on every replica if the flag is true on one of them."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(int(flag))))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the tensor over the replicas."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return the first ``count`` rows of the replicas' tensors one after the other. All have the same shape."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)[:count]

    def share(self, value: Any) -> Any:
        """Return the first replica's value, which must be picklable, on every replica."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    @torch.no_grad()
    def share_buffers(self, model: nn.Module) -> None:
        """Replace the buffers of every replica's network by those of the first. A distributed step does so, too."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the other replicas enter when the first has left without an exception."""
        if not self.is_first:
            self.any(False)
        yield
        if self.is_first:
            self.any(False)


SINGLE = Replicas()


class DistributedStep:
    """A step on this replica's part of a batch, whose gradients are averaged over all replicas; otherwise as Step.

    The weighted loss makes the average that of the whole batch. A part with weight 0 counts nowhere.
    """

    def __init__(self, step: nn.Module):
        self.step, self.terms, self.teacher = step, step.terms, step.teacher
        # It also keeps the buckets of gradients as they are: rebuilt after the first step, they would add in another
        # order than after a resume.
        self._parallel = DistributedDataParallel(step, find_unused_parameters=True)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, sums = self._parallel(batch)
        return batch.weight * loss, sums if batch.weight else torch.zeros_like(sums)

    def compile(self, example: Batch, graphs: bool = True) -> None:
        """Compile the step below DistributedDataParallel."""
        self.step.compile(example, graphs)
