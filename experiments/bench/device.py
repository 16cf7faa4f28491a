"""What is read off the device: the time, its rate of matrix products, and its memory."""

import logging
import re
import resource
import sys
import time
from pathlib import Path

import torch


def now(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matmul_rate(device: torch.device, precision: str) -> float:
    """Return the floating-point operations per second of large square matrix products in a step's precision."""
    # With a CUDA compiler and no GPU, this import logs a warning that does not concern the user.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark  # noqa: PLC0415

    size, products = (8192, 20) if device.type == "cuda" else (2048, 2)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timer = benchmark.Timer(
        "torch.mm(left, right, out=out)",
        globals={"torch": torch, "left": left, "right": right, "out": torch.empty_like(left)},
        num_threads=torch.get_num_threads(),
    )
    return 2 * size**3 / timer.timeit(products).mean


def peak_bytes(device: torch.device) -> int:
    """Return the peak bytes so far: of the tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # On Linux, ru_maxrss includes the peak of the parent process.
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1])
