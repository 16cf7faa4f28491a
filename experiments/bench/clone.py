"""The released code in a clone, and its training loop in a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from cskd.methods import Method
from cskd.utils.cli import absolute
from cskd.utils.errors import UserError
from experiments.runs.source import commit_of

SCRIPT = Path(__file__).with_name("released.py")


@dataclass(frozen=True)
class Clone:
    """A folder with the released code."""

    folder: Path
    commit: str


def find_clone(path: str) -> Clone:
    """Return the clone in a folder. Raises UserError if the released code is not there."""
    folder = absolute(path, "REFERENCE")
    for module in ("train", "datasets", "models"):
        if not any((folder / name).is_file() for name in (f"{module}.py", f"{module}/__init__.py")):
            raise UserError(
                f"{folder} is not a clone of the released code (it has no {module}): "
                "give REFERENCE=<folder that contains its train.py>"
            )
    return Clone(folder, commit_of(folder))


@contextmanager
def released_code(
    clone: Clone, batch_size: int, classes: int, counted: int, cskd: Method | None = None
) -> Iterator["ReleasedCode"]:
    """Start the released code; kill it at the end of the context. cskd: None trains with cross-entropy."""
    command = [
        # -B: write nothing into the clone; -P: do not import modules beside the script
        *(sys.executable, "-B", "-P", SCRIPT, clone.folder),
        *("--batch-size", batch_size, "--classes", classes),
        *("--steps", counted, "--threads", torch.get_num_threads()),
    ]
    if cskd:
        parameters = cskd.parameters()
        command += ["--temperature", parameters["temperature"], "--weight", parameters["lambda_cls"]]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            list(map(str, command)), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        released = ReleasedCode(clone, process, errors)
        try:
            released.read_line()  # its set-up is done, and cannot slow down a turn of this suite
            yield released
        finally:
            process.kill()


class ReleasedCode:
    """A process of the released code, which trains one turn on request."""

    def __init__(self, clone: Clone, process: subprocess.Popen, errors: BinaryIO):
        self.clone, self.process, self.errors = clone, process, errors

    def turn(self, number: int) -> float:
        """Train one turn and return the seconds per step."""
        with suppress(BrokenPipeError):  # the process has ended; read_line raises the error
            self.process.stdin.write(f"{number}\n".encode())
        return float(self.read_line())

    def read_line(self) -> str:
        """Return the next line of output. Raises UserError if the process has ended."""
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").split("\n")
            last = next((text.strip() for text in reversed(lines) if text.strip()), "no message")
            raise UserError(
                f"the released code in {self.clone.folder} ended with status {status} ({last}): "
                "give REFERENCE=<an unchanged clone>, or leave out the part reference"
            )
        return line.decode().strip()
