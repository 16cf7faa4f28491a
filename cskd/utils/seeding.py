"""Random generators derived from (seed, stream, epoch).

A resumed run needs no stored generator state, and a new stream does not change the draws of the others.
"""

import hashlib

import numpy as np
import torch


def derived_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """Return a 63-bit seed that is the same on every machine and for every library version."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, stream: str, epoch: int = 0) -> torch.Generator:
    """Return the generator of one stream in one epoch. It is on the CPU, so that all devices get the same draws."""
    return torch.Generator().manual_seed(derived_seed(seed, stream, epoch))


def choose(count: int, wanted: int, stream: str, seed: int = 0) -> np.ndarray:
    """Return ``wanted`` of ``count`` indices, ascending, drawn from (seed, stream)."""
    order = torch.randperm(count, generator=generator(seed, stream)).numpy()
    return np.sort(order[:wanted])
