"""Results that are computed once and kept in a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cskd.evaluate.predictions import load_arrays
from cskd.utils.integrity import write_archive

Arrays = dict[str, np.ndarray]


def load_kept(path: Path) -> Arrays | None:
    """The arrays of an npz file by name; None where there is none, or none that can be read."""
    try:
        return load_arrays(path)
    except (OSError, ValueError, KeyError):
        return None  # absent, or damaged: computed anew, and written over


def keep(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(path, lambda file: np.savez(file, **arrays), durable=False)


def kept(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays that the file has; where it has none, they are computed and kept in it."""
    arrays = load_kept(path)
    if arrays is None:
        arrays = compute()
        keep(path, arrays)
    return arrays
