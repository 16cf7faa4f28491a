"""A run's folder: complete by itself, readable while the run goes on.

runs/<run key>/spec.json         what is run
               environment.json  what it runs on: commit, versions, device
               state.json        where it stands, with a heartbeat
               metrics.jsonl     one line an epoch; only epochs that the checkpoint holds
               checkpoint.pt     to resume from; gone when the run is done
               previous.pt       the checkpoint before, for when that one is damaged
               claim, holder.1   who trains it (see experiments.runs.lease)
               predictions.npz   after the last epoch: of the test set, and logits of some training images
               weights.pt        the trained network's state_dict
               log.txt           what the process printed

Each file but the log carries a digest of itself (see cskd.utils.integrity, experiments.checked_json). Damage is mended by
training again from the last state that is whole. A process that held the run and has lost it to another writes
nothing more: ClaimLost is raised instead.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cskd.evaluate.predictions import Predictions, load_predictions
from cskd.train.checkpoint import previous_checkpoint
from cskd.utils.errors import UserError
from cskd.utils.files import DiskFull, atomic_write, write_errors
from cskd.utils.integrity import Damaged, is_whole
from experiments.config.spec import RunSpec
from experiments.runs.json_files import checked_line, overwrite_checked, parse_line, read_checked, write_checked
from experiments.runs.lease import HEARTBEAT_LIMIT, Claim, claimed, is_claimed

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
        self._claim: Claim | None = None  # while this process holds the run

    @classmethod
    def of(cls, spec: RunSpec, runs_dir: Path) -> "RunFolder":
        return cls(runs_dir / spec.run_key)

    def create(self, spec: RunSpec) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                read_checked(self.spec_file)
            except (FileNotFoundError, Damaged):
                write_checked(self.spec_file, spec.model_dump(mode="json"))
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): set RUNS_DIR") from error

    def spec(self) -> RunSpec:
        try:
            return RunSpec.model_validate(read_checked(self.spec_file))
        except ValueError as error:  # Damaged among them
            message = f"{self.spec_file} is of another version of the suite, or damaged"
            raise UserError(f"{message}: use that version, or remove {self.path} to start the run anew") from error

    def starts(self) -> list[dict[str, Any]]:
        """What the run was started on, each time it was (see experiments.runs.environment.describe)."""
        try:
            return read_checked(self.environment)["starts"]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (Damaged, KeyError) as error:
            raise UserError(f"{self.environment} is damaged: the next launch starts the run anew") from error

    def write_starts(self, starts: list[dict[str, Any]]) -> None:
        write_checked(self.environment, {"starts": starts}, before_replace=self.before_replace)

    # metrics

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of the finished epochs: {"epoch": 0.., "timestamp": unix seconds, "metrics": {...}}."""
        epochs, damaged = self._read_epochs()
        if damaged:
            raise UserError(f"{self._metrics} is damaged: the next launch trains what is lost again")
        return epochs

    def intact_epochs(self) -> list[dict[str, Any]]:
        """As ``epochs``, of a damaged file those before the damage."""
        return self._read_epochs()[0]

    def _read_epochs(self) -> tuple[list[dict[str, Any]], bool]:
        """(epochs up to the first damaged line, whether there is one)."""
        try:
            text = self._metrics.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return [], False
        whole = text[: text.rfind(b"\n") + 1]  # a line that is still being written is not one yet
        epochs = []
        for line in whole.splitlines():
            record = parse_line(line)
            if record is None or record.get("epoch") != len(epochs):
                return epochs, True
            epochs.append(record)
        return epochs, False

    def add_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Append an epoch; one that is there already is left as it is."""
        have = self.epochs()
        if epoch < len(have):
            return
        if epoch > len(have):
            raise UserError(f"{self._metrics} lacks epochs before {epoch}: remove {self.path} to start anew")
        line = checked_line({"epoch": epoch, "timestamp": round(time.time(), 3), "metrics": metrics})
        with write_errors(self._metrics), self._metrics.open("r+b" if self._metrics.exists() else "w+b") as file:
            end = file.read().rfind(b"\n") + 1
            self.before_replace()
            file.truncate(end)  # half a line, from a process that died
            file.seek(end)
            file.write(line)

    def keep_epochs(self, count: int) -> str | None:
        """Forget all but the first ``count`` epochs: those that the training starts from. Returns what was damaged."""
        have, damaged = self._read_epochs()
        if len(have) > count or damaged:
            with atomic_write(self._metrics, before_replace=self.before_replace) as file:
                file.writelines(map(checked_line, have[:count]))
        return f"{self._metrics.name} is damaged from epoch {len(have) + 1} on" if damaged else None

    # state

    def write_state(self, state: str, **details: Any) -> None:
        content = {"state": state, "heartbeat": time.time()} | details
        try:
            write_checked(self._state, content, durable=state != RUNNING, before_replace=self.before_replace)
        except DiskFull:
            if not self._state.exists():
                raise
            self.before_replace()
            overwrite_checked(self._state, content)

    def state(self) -> dict[str, Any]:
        """The state with its details.

        A run that says that it is running, but has no heartbeat and no process that holds it, is interrupted; so is
        one whose state or metrics are damaged: it has to go on from what is whole.
        """
        try:
            content = read_checked(self._state)
            name, heartbeat = content["state"], content["heartbeat"]
        except (FileNotFoundError, NotADirectoryError):
            return {"state": MISSING}
        except (Damaged, KeyError):
            return self._damaged(self._state, heartbeat=0.0)
        # A heartbeat from the future is no sign of life either: a clock was set back.
        silent = abs(time.time() - heartbeat) > HEARTBEAT_LIMIT
        if name == RUNNING and silent and not self.is_claimed():
            content["state"] = INTERRUPTED
        if name == DONE:
            epochs, damaged = self._read_epochs()
            if damaged or len(epochs) < content.get("epochs", 0):
                return self._damaged(self._metrics, heartbeat)
        return content

    def _damaged(self, file: Path, heartbeat: float) -> dict[str, Any]:
        epoch = len(self.intact_epochs())
        return {"state": INTERRUPTED, "heartbeat": heartbeat, "epoch": epoch, "reason": f"{file.name} is damaged"}

    # results

    def load_predictions(self) -> Predictions:
        return load_predictions(self.predictions)

    def damage(self) -> str | None:
        """Which file of a finished run is not as it was written; None where all are. Reads every byte of them."""
        for file in (self.predictions, self.weights):
            if file.exists() and not is_whole(file):
                return f"{file.name} is damaged"
        try:
            self.starts()
        except UserError:
            return f"{self.environment.name} is damaged"
        return None

    def is_complete(self) -> bool:
        """Whether all that a finished run has is here and undamaged, whatever its state says.

        The checkpoint goes when all else is there.
        """
        results = all(map(is_whole, (self.predictions, self.weights)))
        count = len(self.intact_epochs())
        return results and not self.checkpoint.exists() and count == self.spec().settings.schedule.epochs

    def discard_damaged(self) -> None:
        """Of a finished run one of whose files is damaged: let it be trained again."""
        if self.state()["state"] != DONE:
            return
        with self.claimed(patience=1.0) as mine:
            if mine and self.state()["state"] == DONE and (damage := self.damage()):
                self.write_state(INTERRUPTED, reason=damage, epoch=len(self.intact_epochs()))

    def epochs_to_resume_from(self) -> int:
        """How many epochs need not be trained again, as far as the names of the files tell."""
        return len(self.intact_epochs()) if any(file.exists() for file in self._checkpoints()) else 0

    def _checkpoints(self) -> tuple[Path, Path]:
        return self.checkpoint, previous_checkpoint(self.checkpoint)

    def remove_checkpoints(self) -> None:
        self.before_replace()
        for file in self._checkpoints():
            file.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """What processes that were killed had begun to write. Only for the one that holds the run."""
        for file in self.path.glob("*.part"):
            if not file.name.startswith("holder."):  # of another machine, which is about to ask for the run
                file.unlink(missing_ok=True)

    # who trains it

    @contextmanager
    def claimed(self, patience: float = 15.0) -> Iterator[Claim | None]:
        """Hold the run for this process, so that no two train it; None when another one has it.

        The claim ends with the process, however that ends. patience: seconds to wait for a process that is
        about to stop.
        """
        with claimed(self.path, patience) as claim:
            self._claim = claim
            try:
                yield claim
            finally:
                self._claim = None

    def before_replace(self) -> None:
        """Raises ClaimLost where this process held the run and another one has taken it over."""
        if self._claim is not None:
            self._claim.check()

    def is_claimed(self) -> bool:
        """Whether a process holds the run."""
        return is_claimed(self.path)
