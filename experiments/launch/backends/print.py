"""Prints the command of each job, to be run by hand or by a scheduler; ``make sync`` uploads the results later.

Teachers are printed before their students, and must be done before the students start.
"""

import shlex
from collections.abc import Sequence

from experiments.launch.backends.base import Job


class PrintBackend:
    detached = True

    def __init__(self, workers: int):
        pass

    def submit(self, jobs: Sequence[Job], last: Job) -> None:
        for job in jobs:
            print(shlex.join(job.command))
