"""A step of ours against the released code's own, which runs in a process of its own from a clone."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from rich.console import Console
from rich.progress import Progress

from cskd.methods import build_method
from cskd.utils.cli import absolute
from cskd.utils.errors import UserError
from experiments.bench.files import write_rows
from experiments.bench.images import CLASSES, made_up
from experiments.bench.ours import TimedTrainer
from experiments.bench.pairs import METHODS, Pair, row_of, table_of, take_turns
from experiments.config.recipe import Settings, load_settings
from experiments.runs.environment import commit

SCRIPT = Path(__file__).with_name("released.py")
DATASET, ARCHITECTURE, WIDTH = "cifar100", "resnet18", 64


@dataclass(frozen=True)
class Clone:
    """A folder with the released code."""

    folder: Path
    commit: str

    @classmethod
    def at(cls, path: str) -> "Clone":
        """Raises UserError where the released code does not lie."""
        folder = absolute(path, "REFERENCE")
        for module in ("train", "datasets", "models"):
            if not any((folder / name).is_file() for name in (f"{module}.py", f"{module}/__init__.py")):
                raise UserError(
                    f"{folder} is no clone of the released code (it has no {module}): "
                    "give REFERENCE=<folder that holds its train.py>"
                )
        return cls(folder, commit(folder)[0])


def settings_of_theirs(overrides: tuple[str, ...]) -> tuple[str, Settings]:
    """(profile, settings) of the recipe that the released code trains; UserError for what it cannot do."""
    profile, settings = load_settings(DATASET, None, overrides)
    inputs = settings.inputs
    own = (settings.resolve_architecture(ARCHITECTURE), settings.width, inputs.train, inputs.image_size)
    if own != (ARCHITECTURE, WIDTH, "pad-crop", 32):
        raise UserError(
            f"the released code has a {ARCHITECTURE} of width {WIDTH} for images of 32 px: "
            "measure it without changing the network or its inputs, or leave the part reference out"
        )
    return profile, settings.model_copy(update={"subset": None})  # of made-up images


def measure(
    clone: Clone, network: tuple[str, Settings], turns: int, steps: int, console: Console, progress: Progress
) -> None:
    profile, settings = network
    dataset = made_up(DATASET, settings, 1 + steps)
    task = progress.add_task("reference", total=1 + turns)
    with ExitStack() as stack:
        pairs = []
        for method in METHODS:
            ours = TimedTrainer(dataset, profile, settings, ARCHITECTURE, method, uncounted=1, counted=steps)
            released = stack.enter_context(released_code(clone, settings, method, steps))
            pairs.append(Pair(ours, released.turn))
        take_turns(pairs, turns, lambda: progress.advance(task))
    console.print(table_of(pairs, "released code, fp32"))
    rows = [row_of(pair, "released") | {"released_commit": clone.commit} for pair in pairs]
    write_rows("reference", rows, console)


@contextmanager
def released_code(clone: Clone, settings: Settings, method: str, steps: int) -> Iterator["Released"]:
    """The released code, set up for a method; it ends with the context."""
    command = [
        # -B: nothing is written into the clone; -P: the modules beside the script are none of its
        *(sys.executable, "-B", "-P", SCRIPT, clone.folder),
        *("--batch-size", settings.batch_size, "--classes", CLASSES),
        *("--steps", steps, "--threads", torch.get_num_threads()),
    ]
    if method == "cs-kd":
        own = build_method(method, settings.parameters_of(method)).parameters()
        command += ["--temperature", own["temperature"], "--weight", own["lambda_cls"]]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            list(map(str, command)), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        released = Released(clone, process, errors)
        try:
            released.answer()  # it is set up: nothing of that falls into a turn of ours
            yield released
        finally:
            process.kill()  # it waits for a turn, and has nothing to lose


class Released:
    """A process of the released code that trains a turn when it is asked to."""

    def __init__(self, clone: Clone, process: subprocess.Popen, errors: BinaryIO):
        self.clone, self.process, self.errors = clone, process, errors

    def turn(self, number: int) -> float:
        """Seconds of a step."""
        with suppress(BrokenPipeError):  # it has ended: there is no answer, and why is in its errors
            self.process.stdin.write(f"{number}\n".encode())
        return float(self.answer())

    def answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.errors.seek(0)
            message = self.errors.read().decode(errors="replace").split("\n")
            last = next((one.strip() for one in reversed(message) if one.strip()), "it said nothing")
            raise UserError(
                f"the released code in {self.clone.folder} ended with status {status} ({last}): "
                "give REFERENCE=<an unchanged clone>, or leave the part reference out"
            )
        return line.decode().strip()
