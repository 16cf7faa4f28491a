"""Derived randomness: every draw comes from a generator made from (seed, stream, epoch).

Nothing has to be stored to resume, and a new stream leaves the draws of the others alone.
"""

import hashlib

import torch


def derived_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed, the same on every machine and in every version."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, stream: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one stream of one epoch. On the CPU, so that every device sees the same draws."""
    return torch.Generator().manual_seed(derived_seed(seed, stream, epoch))
