"""A run's folder: complete by itself, readable while the run goes on.

runs/<run key>/spec.json         what is run
               environment.json  what it runs on: commit, versions, device
               state.json        where it stands, with a heartbeat
               metrics.jsonl     one line an epoch; only epochs that the checkpoint holds
               checkpoint.pt     to resume from; gone when the run is done
               predictions.npz   after the last epoch: of the test set, and logits of some training images
               weights.pt        the trained network's state_dict
               log.txt           what the process printed
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cskd.errors import UserError
from cskd.files import writing, written_aside
from cskd.predictions import Predictions, load_predictions
from experiments.spec import RunSpec

HEARTBEAT_LIMIT = 60.0  # seconds without one after which a run counts as dead

MISSING, RUNNING, INTERRUPTED, FAILED, DONE = "missing", "running", "interrupted", "failed", "done"


class RunFolder:
    """The files of one run, and the only place that knows their names."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.predictions = path / "predictions.npz"
        self.weights = path / "weights.pt"
        self.environment = path / "environment.json"
        self.spec_file = path / "spec.json"
        self.log = path / "log.txt"
        self._metrics = path / "metrics.jsonl"
        self._state = path / "state.json"

    @classmethod
    def of(cls, spec: RunSpec, runs_dir: Path) -> "RunFolder":
        return cls(runs_dir / spec.run_key)

    def create(self, spec: RunSpec) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.spec_file.exists():
                write_json(self.spec_file, spec.model_dump(mode="json"))
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): set RUNS_DIR") from error

    def spec(self) -> RunSpec:
        try:
            return RunSpec.model_validate_json(self.spec_file.read_text())
        except ValueError as error:
            told = f"{self.spec_file} is of another version of the suite, or damaged"
            raise UserError(f"{told}: use that version, or remove {self.path} to start the run anew") from error

    def starts(self) -> list[dict[str, Any]]:
        """What the run was started on, each time it was (see experiments.environment.describe)."""
        try:
            return json.loads(self.environment.read_text())["starts"]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, KeyError) as error:
            raise UserError(f"{self.environment} is damaged: remove {self.path} to start the run anew") from error

    # metrics

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of the finished epochs: {"epoch": 0.., "timestamp": unix seconds, "metrics": {...}}."""
        try:
            text = self._metrics.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return []
        whole = text[: text.rfind("\n") + 1]  # a line that is still being written is not one yet
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise UserError(f"{self._metrics} is damaged: remove {self.path} to start the run anew") from error

    def add_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Append an epoch; one that is there already is left as it is."""
        have = self.epochs()
        if epoch < len(have):
            return
        if epoch > len(have):
            raise UserError(f"{self._metrics} lacks epochs before {epoch}: remove {self.path} to start anew")
        record = {"epoch": epoch, "timestamp": round(time.time(), 3), "metrics": metrics}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with writing(self._metrics), self._metrics.open("r+b" if self._metrics.exists() else "w+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)  # half a line, from a process that died
            file.seek(0, 2)
            file.write(line)

    def keep_epochs(self, count: int) -> None:
        """Forget all but the first ``count`` epochs: those that the training starts from."""
        have = self.epochs()
        if len(have) > count:
            with written_aside(self._metrics) as file:
                file.writelines(json.dumps(record).encode() + b"\n" for record in have[:count])

    # state

    def write_state(self, state: str, **details: Any) -> None:
        write_json(self._state, {"state": state, "heartbeat": time.time()} | details, durable=state != RUNNING)

    def state(self) -> dict[str, Any]:
        """The state with its details.

        A run that says that it is running, but has no heartbeat and no process that holds it, is
        interrupted; so is one whose state a power cut has left unreadable.
        """
        try:
            content = json.loads(self._state.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {"state": MISSING}
        except ValueError:
            return {"state": INTERRUPTED, "heartbeat": 0.0, "epoch": len(self.epochs())}
        # A heartbeat from the future is no sign of life either: a clock was set back.
        silent = abs(time.time() - content["heartbeat"]) > HEARTBEAT_LIMIT
        if content["state"] == RUNNING and silent and not self._is_claimed():
            content["state"] = INTERRUPTED
        return content

    def _is_claimed(self) -> bool:
        with self.claimed(patience=0.0) as mine:
            return not mine

    # results

    def load_predictions(self) -> Predictions:
        return load_predictions(self.predictions)

    @contextmanager
    def claimed(self, patience: float = 15.0) -> Iterator[bool]:
        """Hold the run for this process, so that no two train it; False when another one has it.

        The claim ends with the process, however that ends. patience: seconds to wait for a process that is
        about to stop.
        """
        with (self.path / "claim").open("w") as file:
            until = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        yield False
                        return
                    time.sleep(0.2)
            yield True


def write_json(path: Path, content: dict[str, Any], durable: bool = True) -> None:
    """Write JSON so that a reader sees the old or the new content; ``durable`` also survives a power cut."""
    text = json.dumps(content, indent=1, sort_keys=True).encode()
    if durable:
        with written_aside(path) as file:
            file.write(text)
    else:
        aside = path.with_name(path.name + ".part")
        with writing(path):
            aside.write_bytes(text)
            aside.replace(path)
