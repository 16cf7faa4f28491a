"""The checkpoints of a run: when one is written, and which one is restored."""

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cskd.utils.errors import UserError
from cskd.utils.files import write_errors
from cskd.utils.integrity import Damaged, read_archive, write_archive

MAX_TIME_SHARE = 0.02  # of the run's time may go into checkpoints ...
MAX_SECONDS_BETWEEN = 30.0  # ... unless the last one is this old


def previous_checkpoint(checkpoint: Path) -> Path:
    return checkpoint.with_name("previous.pt")


class Checkpoints:
    """The latest checkpoint of a run and the one before it, which is restored if the latest is damaged.

    Args:
        file: the latest checkpoint; None writes and restores nothing.
        identity: must be the same on restoring (the run key).
        before_replace: called before a checkpoint is replaced; if it raises, the old ones stay.

    Attributes:
        damage: a message for each damaged checkpoint that ``latest`` found.
    """

    def __init__(self, file: Path | None, identity: str, before_replace: Callable[[], None] = lambda: None):
        self.file, self.identity, self.before_replace = file, identity, before_replace
        self.damage: list[str] = []
        self._cost = 0.0  # seconds that the last checkpoint took
        self._written_at = time.monotonic()

    def is_due(self) -> bool:
        """Return True if a checkpoint is due: its cost stays within MAX_TIME_SHARE, or the last one is too old."""
        since = time.monotonic() - self._written_at
        return since >= min(MAX_SECONDS_BETWEEN, self._cost / MAX_TIME_SHARE)

    def write(self, state: dict[str, Any]) -> None:
        """Write the state and keep the checkpoint before it. Raises UserError if the disk is full."""
        if self.file is None:
            return
        started = time.monotonic()
        content = state | {"identity": self.identity}
        write_archive(self.file, lambda file: torch.save(content, file), before_replace=self._keep_previous)
        self._written_at = time.monotonic()
        self._cost = self._written_at - started

    def _keep_previous(self) -> None:
        self.before_replace()
        with write_errors(self.file):
            if self.file.exists():
                self.file.replace(previous_checkpoint(self.file))

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return (file, state) of the latest intact checkpoint, or None. Removes damaged ones.

        Raises UserError for a checkpoint of another run.
        """
        for file in (self.file, previous_checkpoint(self.file)) if self.file else ():
            state = self._read(file)
            if state is not None:
                return file, state
        return None

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            state = torch.load(read_archive(file), map_location="cpu", weights_only=True)
            identity = state["identity"]
        except FileNotFoundError:
            return None
        except (Damaged, RuntimeError, KeyError, EOFError, TypeError, pickle.UnpicklingError):
            self.damage.append(f"{file.name} is damaged")
            file.unlink()  # the next write would keep it as the previous one
            return None
        if identity != self.identity:
            raise UserError(f"{file} belongs to another run: remove it to start this run again")
        return state
