"""Train one run folder in this process."""

from experiments.launch.worker import main

__all__ = ["main"]
