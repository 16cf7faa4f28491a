"""Launch backends: where jobs run. A new backend is a file here and an entry in BACKENDS."""

from experiments.launch.backends.base import Backend, Exit, Job
from experiments.launch.backends.local import LocalBackend
from experiments.launch.backends.print import PrintBackend
from experiments.launch.backends.ray import RayBackend

BACKENDS: dict[str, type[Backend]] = {"local": LocalBackend, "print": PrintBackend, "ray": RayBackend}

__all__ = ["BACKENDS", "Backend", "Exit", "Job"]
