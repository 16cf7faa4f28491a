"""A cache of computed arrays: one npz file for each result."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cskd.evaluate.predictions import load_arrays
from cskd.utils.integrity import write_archive

Arrays = dict[str, np.ndarray]


def load_cached(path: Path) -> Arrays | None:
    """Return the arrays of an npz file by name, or None if the file is absent or damaged."""
    try:
        return load_arrays(path)
    except (OSError, ValueError, KeyError):
        return None


def store_cached(path: Path, arrays: Arrays) -> None:
    """Write the arrays to an npz file. Folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(path, lambda file: np.savez(file, **arrays), durable=False)


def cached(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """Return the cached arrays; compute and store them if there are none."""
    arrays = load_cached(path)
    if arrays is None:
        arrays = compute()
        store_cached(path, arrays)
    return arrays
