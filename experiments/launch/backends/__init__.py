"""Launch backends: where jobs run. A new backend is a file here and an entry in BACKENDS."""

from experiments.launch.backends.base import Backend, DetachedBackend, Exit, Job
from experiments.launch.backends.local import LocalBackend
from experiments.launch.backends.print import PrintBackend
from experiments.launch.backends.ray import RayBackend
from experiments.launch.backends.slurm import SlurmBackend

BACKENDS: dict[str, type[Backend | DetachedBackend]] = {
    "local": LocalBackend,
    "print": PrintBackend,
    "ray": RayBackend,
    "slurm": SlurmBackend,
}

__all__ = ["BACKENDS", "Backend", "DetachedBackend", "Exit", "Job"]
