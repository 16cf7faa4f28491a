"""The numeric precision of a run."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def resolve(precision: str, device: torch.device) -> str:
    """Return ``bf16`` or ``fp32``; ``auto`` is bf16 where the device computes it natively."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    native = _gpu_has_bf16() if device.type == "cuda" else _cpu_has_bf16()
    return "bf16" if native else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context for forward passes and losses."""
    if precision == "fp32":
        return nullcontext()
    # Without the cache: it would reuse casts from a pass without gradients in a pass that needs gradients.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)  # emulated bf16 is slower than fp32


def _cpu_has_bf16() -> bool:
    """Return True if the CPU has AMX or avx512_bf16; only Linux reports it."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
