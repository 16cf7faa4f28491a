"""Submits jobs to Slurm: an array of those that need no other, and an array of the students of each teacher.

``slurm.sh`` is the script of a task, ``slurm.yaml`` has the default options of sbatch. The tasks of an array are the
lines of a file in RUNS_DIR/slurm, by which a task in the queue is found again.
"""

import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cskd.utils.cli import runs_dir
from cskd.utils.errors import UserError, one_line
from cskd.utils.files import write_errors
from cskd.utils.yaml import read_mapping
from experiments.launch.backends.base import Job

SCRIPT = Path(__file__).with_suffix(".sh")
DEFAULTS = Path(__file__).with_suffix(".yaml")
FIELDS = ("JobArrayID", "State", "NodeList", "RestartCnt", "Command")  # of squeue
RUN, SYNC = "run", "sync"  # sections of DEFAULTS


class SlurmBackend:
    detached = True

    def __init__(self, workers: int):
        self.workers = workers
        if not shutil.which("sbatch"):
            raise UserError("LAUNCHER=slurm: there is no sbatch here: launch on a machine of the Slurm cluster")

    def submit(self, jobs: Sequence[Job], last: Job) -> None:
        """Submit the jobs whose runs are not in the queue yet; all or none."""
        ids = {folder: task.id for folder, task in queued_tasks().items()}
        waiting = [job for job in jobs if job.folder not in ids]
        if len(waiting) < len(jobs):
            print(f"{len(jobs) - len(waiting)} of {len(jobs)} tasks are in Slurm's queue already")
        unfinished = {*ids, *(job.folder for job in waiting)}
        needs = {job.folder: unfinished.intersection(job.needs) for job in waiting}
        arrays: list[str] = []
        try:
            while waiting:
                first = needs[waiting[0].folder]  # those are in ``ids``: teachers come before their students
                array = [job for job in waiting if needs[job.folder] == first]
                waiting = [job for job in waiting if needs[job.folder] != first]
                after = sorted(ids[need] for need in first)
                arrays.append(self._submit_array(RUN, array, "afterok", after))
                ids |= {job.folder: f"{arrays[-1]}_{number}" for number, job in enumerate(array)}
                dependency = f", after job {', '.join(after)}" if after else ""
                print(f"Slurm job {arrays[-1]}: {len(array)} tasks, at most {self.workers} at once{dependency}")
            if arrays:
                sync = self._submit_array(SYNC, [last], "afterany", arrays)
                print(f"Slurm job {sync}: uploads the results, after all of them")
        except UserError:
            if arrays:
                subprocess.run(["scancel", *arrays], check=False)
            raise

    def _submit_array(self, section: str, jobs: list[Job], kind: str, after: list[str]) -> str:
        """Submit an array and return its id. kind: how it depends on the jobs ``after``."""
        folder = runs_dir() / "slurm"
        tasks = folder / f"{secrets.token_hex(8)}.tasks"
        with write_errors(tasks):
            folder.mkdir(parents=True, exist_ok=True)
            lines = [shlex.join([str(job.folder), str(job.log), *job.command]) + "\n" for job in jobs]
            tasks.write_text("".join(lines))
        dependency = [f"--dependency={kind}:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
        options = [
            *_options(section, max(job.gpus for job in jobs)),
            "--parsable",
            f"--array=0-{len(jobs) - 1}%{self.workers}",
            *dependency,
            "--requeue",
            "--open-mode=append",
            "--export=ALL",
            f"--output={str(folder).replace('%', '%%')}/%A_%a.out",
        ]
        # This process's number of threads is of this machine; a task takes its own from --cpus-per-task.
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return _call(["sbatch", *options, str(SCRIPT), str(tasks)], environment).partition(";")[0].strip()


def _options(section: str, gpus: int) -> list[str]:
    """Return the default options of sbatch, and the user's after them: sbatch takes the last of a name."""
    defaults = read_mapping(DEFAULTS)[section]
    if gpus > 1:
        defaults |= {"gres": f"gpu:{gpus}", "cpus-per-task": gpus * defaults["cpus-per-task"]}
    try:
        given = shlex.split(os.environ.get("SLURM", ""))
    except ValueError as error:
        raise UserError(f"SLURM={os.environ['SLURM']}: {error}: give options of sbatch") from error
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in defaults.items()] + given


@dataclass(frozen=True)
class QueuedTask:
    """A task in Slurm's queue."""

    id: str  # such as 123_4
    state: str
    node: str
    restarts: int

    def describe(self) -> str:
        """Return text such as "pending, requeued 2x" or "on node7"."""
        where = f"on {self.node}" if self.state == "RUNNING" else self.state.lower()
        return where + (f", requeued {self.restarts}x" if self.restarts else "")


def queued_tasks() -> dict[Path, QueuedTask]:
    """Return the user's tasks of this RUNS_DIR in the queue by the folder of their run.

    Raises UserError if the queue cannot be read.
    """
    folder = runs_dir() / "slurm"
    if not folder.is_dir():
        return {}
    listed = _call(["squeue", "--me", "--array", "--noheader", "--Format", ",".join(f"{name}:|" for name in FIELDS)])
    tasks = {}
    for line in listed.splitlines():
        number, state, node, restarts, command = line.split("|")[: len(FIELDS)]
        found = re.search(r"/([0-9a-f]{16}\.tasks)$", command)
        if not found or not (folder / found[1]).exists():
            continue
        described = (folder / found[1]).read_text().splitlines()[int(number.partition("_")[2])]
        tasks[Path(shlex.split(described)[0])] = QueuedTask(number, state, node, int(restarts))
    return tasks


def _call(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return the output of a command of Slurm. Raises UserError with its message."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started ({error.strerror}): use a machine of the cluster") from error
    if done.returncode:
        message = "; ".join(line.removeprefix(f"{command[0]}: error: ") for line in done.stderr.splitlines())
        raise UserError(f"{command[0]}: {one_line(message) or f'status {done.returncode}'}")
    return done.stdout
