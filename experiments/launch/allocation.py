"""How processes that train allocate memory on a CPU."""

import os
import sys

# glibc's malloc returns the memory of large tensors to the kernel and gets it back, page by page, in every step. These
# settings keep it, in huge pages. glibc reads them when a process starts; they change no result (docs/speed.md).
GLIBC_TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (("hugetlb", 1), ("mmap_threshold", 2**33), ("trim_threshold", 2**34))
)


def allocation() -> dict[str, str]:
    """Return the environment variables of a process that trains; none if it has GLIBC_TUNABLES."""
    return {} if "GLIBC_TUNABLES" in os.environ else {"GLIBC_TUNABLES": GLIBC_TUNABLES}


def restart_with_allocation() -> None:
    """Replace this process by the same command with these variables, which its own children do not get."""
    if os.environ.get("GLIBC_TUNABLES") == GLIBC_TUNABLES:
        del os.environ["GLIBC_TUNABLES"]
    elif variables := allocation():
        os.execve(sys.executable, sys.orig_argv, os.environ | variables)
