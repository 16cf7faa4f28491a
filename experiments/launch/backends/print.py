"""Prints the command of each job, to be run by hand or by a scheduler; ``make sync`` uploads the results later.

Teachers are printed before their students, and must be done before the students start.
"""

import shlex

from experiments.launch.backends.base import Exit, Job


class PrintBackend:
    detached = True

    def __init__(self, workers: int):
        pass

    def start(self, job: Job, slot: int) -> None:
        print(shlex.join(job.command))

    def poll(self, handle: None) -> Exit | None:
        return None

    def stop(self, handle: None, number: int) -> None:
        pass
