"""Which arithmetic a run uses: chosen from what the hardware gains from, or as asked for."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def resolve(precision: str, device: torch.device) -> str:
    """``bf16`` or ``fp32``. ``auto`` is bf16 autocast where the device computes it natively."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    native = _gpu_computes_bf16() if device.type == "cuda" else _cpu_computes_bf16()
    return "bf16" if native else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context for forward passes and losses."""
    if precision == "fp32":
        return nullcontext()
    # The cache would keep the weights' casts of a pass without gradient for the pass that needs one.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def _gpu_computes_bf16() -> bool:
    """Whether this GPU has bf16: torch would also say so of one on which it is made of fp32, which takes longer."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_computes_bf16() -> bool:
    """Whether this CPU has AMX or avx512_bf16. Only Linux tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
