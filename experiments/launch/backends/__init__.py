"""Launch backends: where jobs run. A new backend is a file here and an entry in BACKENDS."""

from pkgutil import resolve_name

from experiments.launch.backends.base import Backend, DetachedBackend, Exit, Job

__all__ = ["BACKENDS", "Backend", "DetachedBackend", "Exit", "Job", "backend_class"]

BACKENDS = {
    "local": "experiments.launch.backends.local:LocalBackend",
    "print": "experiments.launch.backends.print:PrintBackend",
    "ray": "experiments.launch.backends.ray:RayBackend",
    "slurm": "experiments.launch.backends.slurm:SlurmBackend",
}


def backend_class(name: str) -> type[Backend | DetachedBackend]:
    """Return the class of a backend. Its module is imported only if the backend is used."""
    return resolve_name(BACKENDS[name])
