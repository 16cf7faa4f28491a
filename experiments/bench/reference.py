"""The part ``reference``: a step of this suite against the released code, which runs in its own process."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from cskd.methods import build_method
from cskd.utils.cli import absolute
from cskd.utils.errors import UserError
from experiments.bench.images import CLASSES, noise_images
from experiments.bench.results import COMPARED, Cell, Options, Row
from experiments.bench.timing import TimedTrainer, Turns, comparison_columns, comparison_row, take_turns
from experiments.config.recipe import load_settings
from experiments.runs.source import commit_of

SCRIPT = Path(__file__).with_name("released.py")
DATASET, ARCHITECTURE, WIDTH = "cifar100", "resnet18", 64
TABLE = comparison_columns("released", "released code, fp32")


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


def reference_cell(overrides: tuple[str, ...]) -> Cell:
    """Return the cell that the released code can train. Raises UserError if the overrides change network or inputs."""
    profile, settings = load_settings(DATASET, None, overrides)
    inputs = settings.inputs
    network = (settings.resolve_architecture(ARCHITECTURE), settings.width, inputs.train, inputs.image_size)
    if network != (ARCHITECTURE, WIDTH, "pad-crop", 32):
        raise UserError(
            f"the released code has a {ARCHITECTURE} of width {WIDTH} for images of 32 px: "
            "do not change the network or its inputs, or leave out the part reference"
        )
    return Cell(DATASET, profile, settings.model_copy(update={"subset": None}), ARCHITECTURE)


def measure(clone: Clone, cell: Cell, options: Options) -> dict[str, list[Row]]:
    images = noise_images(cell, 1 + options.steps)
    with ExitStack() as stack:
        methods = []
        for method in COMPARED:
            trainer = TimedTrainer(cell, method, images, uncounted=1, counted=options.steps)
            released = stack.enter_context(released_code(clone, cell, method, options.steps))
            methods.append(Turns(trainer, {"released": released.turn}))
        take_turns(methods, options)
    return {"reference": [comparison_row(method, "released") | {"released_commit": clone.commit} for method in methods]}


@contextmanager
def released_code(clone: Clone, cell: Cell, method: str, counted: int) -> Iterator["ReleasedCode"]:
    """Start the released code for a method; kill it at the end of the context."""
    command = [
        # -B: write nothing into the clone; -P: do not import modules beside the script
        *(sys.executable, "-B", "-P", SCRIPT, clone.folder),
        *("--batch-size", cell.settings.batch_size, "--classes", CLASSES),
        *("--steps", counted, "--threads", torch.get_num_threads()),
    ]
    if method == "cs-kd":
        parameters = build_method(method, cell.settings.parameters_of(method)).parameters()
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
