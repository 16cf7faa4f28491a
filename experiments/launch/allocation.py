"""How training processes allocate memory on a CPU."""

import os

# glibc's malloc returns the memory of large tensors to the kernel and gets it back, page by page, in every step. These
# settings keep it, in huge pages. glibc reads them when a process starts; they change no result (docs/speed.md).
GLIBC_TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (("hugetlb", 1), ("mmap_threshold", 2**33), ("trim_threshold", 2**34))
)


def allocation() -> dict[str, str]:
    """Return the environment variables of a training process; none if the user has set GLIBC_TUNABLES."""
    return {} if "GLIBC_TUNABLES" in os.environ else {"GLIBC_TUNABLES": GLIBC_TUNABLES}
