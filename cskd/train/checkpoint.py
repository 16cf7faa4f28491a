"""A run's checkpoints: when one is due, how it is written, and which is taken up again."""

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cskd.utils.errors import UserError
from cskd.utils.files import write_errors
from cskd.utils.integrity import Damaged, read_sealed, write_sealed

MAX_TIME_SHARE = 0.02  # of a run's time may go into checkpoints ...
MAX_SECONDS_BETWEEN = 30.0  # ... unless the last is as old as this


def previous_checkpoint(checkpoint: Path) -> Path:
    """Where the checkpoint before is kept."""
    return checkpoint.with_name("previous.pt")


class Checkpoints:
    """The latest checkpoint of a run and, beside it, the one before, taken up where the latest is damaged.

    file: where they are kept; None keeps none.
    identity: a text that must be the same when a checkpoint is taken up again (the run key).
    before_replace: called right before a checkpoint is put in its place; what it raises keeps those that are there.
    damage: says what was damaged, once ``latest`` was called.
    """

    def __init__(self, file: Path | None, identity: str, before_replace: Callable[[], None] = lambda: None):
        self.file, self.identity, self.before_replace = file, identity, before_replace
        self.damage: list[str] = []
        self._cost = 0.0  # seconds that the last one took
        self._written_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether to write one now: always, where the epochs are long beside it; else as often as costs little."""
        since = time.monotonic() - self._written_at
        return since >= min(MAX_SECONDS_BETWEEN, self._cost / MAX_TIME_SHARE)

    def write(self, state: dict[str, Any]) -> None:
        """Keep the state, ``{"next_epoch": int, "metrics": one dict an epoch since the last, ...}``, and the one
        before. Raises UserError for a full disk and the like.
        """
        if self.file is None:
            return
        started = time.monotonic()
        content = state | {"identity": self.identity}
        write_sealed(self.file, lambda file: torch.save(content, file), before_replace=self._keep_previous)
        self._written_at = time.monotonic()
        self._cost = self._written_at - started

    def _keep_previous(self) -> None:
        self.before_replace()
        with write_errors(self.file):
            if self.file.exists():
                self.file.replace(previous_checkpoint(self.file))

    def latest(self, known_epochs: int | None) -> tuple[Path, dict[str, Any]] | None:
        """(file, state) to go on from; None without any.

        known_epochs: how many epochs are recorded elsewhere; a checkpoint of one that comes after a gap in these is
        not taken up, those whose metrics it holds itself being none. None: whatever it holds.
        Raises UserError for a checkpoint of another run.
        """
        for file in (self.file, previous_checkpoint(self.file)) if self.file else ():
            state = self._read(file)
            if state is None:
                continue
            if known_epochs is None or state["next_epoch"] <= known_epochs + len(state["metrics"]):
                return file, state
        return None

    def _read(self, file: Path) -> dict[str, Any] | None:
        """What is in a checkpoint; None where there is none, or a damaged one."""
        try:
            state = torch.load(read_sealed(file), map_location="cpu", weights_only=True)
            identity = state["identity"]
        except FileNotFoundError:
            return None
        except (Damaged, RuntimeError, KeyError, EOFError, TypeError, pickle.UnpicklingError):
            self.damage.append(f"{file.name} is damaged")
            file.unlink()  # or it would be kept in the place of a good one
            return None
        if identity != self.identity:
            raise UserError(f"{file} belongs to another run: remove it to start this run anew")
        if isinstance(state["metrics"], dict):  # of a version that wrote one after every epoch
            state["metrics"] = [state["metrics"]]
        return state
