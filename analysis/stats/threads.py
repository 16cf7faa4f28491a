"""The number of threads of numerical libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Run each operation of NumPy, SciPy, scikit-learn and torch in one thread: the caller starts its own threads."""
    import torch  # noqa: PLC0415 - takes seconds to import, and few commands compute

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
