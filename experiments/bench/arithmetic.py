"""How much arithmetic a step is, and how fast the device does arithmetic at best."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from cskd.train.trainer import Trainer
from cskd.utils.seeding import generator
from experiments.bench.timing import now


def flops_of(trainer: Trainer) -> int:
    """Of a step's convolutions and matrix products, forward and backward passes: two for each multiply-add.

    Counted on a full batch that is not compiled: the counter does not see what happens in compiled code.
    """
    trainer.model.train()
    batch = trainer.method.transform(next(trainer.loader.epoch(0)), generator(0, "flops"))
    with FlopCounterMode(display=False) as counter:
        loss, _ = trainer.step.eager(batch)
        loss.backward()
    trainer.model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


class MatrixProduct:
    """The product of two large square matrices in a step's precision: the most that a step could reach."""

    def __init__(self, device: torch.device, precision: str):
        self.device = device
        self.size, self.products = (8192, 20) if device.type == "cuda" else (2048, 2)  # of a turn, some 0.1 s
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.left, self.right = (torch.randn(self.size, self.size, device=device).to(dtype) for _ in range(2))
        self.out = torch.empty_like(self.left)

    def turn(self) -> float:
        """Floating-point operations in a second, after a product that is not counted."""
        torch.mm(self.left, self.right, out=self.out)
        started = now(self.device)
        for _ in range(self.products):
            torch.mm(self.left, self.right, out=self.out)
        return self.products * 2 * self.size**3 / (now(self.device) - started)
