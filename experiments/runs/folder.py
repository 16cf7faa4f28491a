"""A run's folder: complete by itself, and readable while the run trains.

runs/<run key>/spec.json         the run: everything that can change its numbers
               environment.json  training_id, and the commit, versions and device of each start
               state.json        state, reason, progress and heartbeat
               metrics.jsonl     {"epoch", "timestamp", "metrics"} of each epoch, copied from the checkpoint
               checkpoint.pt     the state to resume from, with all epochs so far; removed when the run is done
               previous.pt       the checkpoint before it, used if checkpoint.pt is damaged
               predictions.npz   predictions of test, training and left-out images, after the last epoch
               evaluation.npz    the evaluation of the test predictions; computed again if it is missing or damaged
               weights.pt        the trained network's state_dict
               summary.json      how the latest training process ended
               SHA256SUMS        checksums of a run that is done
               lease             the process that trains the run (see experiments.runs.lease)
               log.txt           the output of the training processes

Before a run is done, a file is damaged if its JSON does not parse or the CRCs of its archive differ; the run is then
resumed from its last intact state. A process that holds the lease checks it before each write (see ``LeasedFolder``).
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cskd.utils.errors import UserError
from cskd.utils.files import DiskFull, atomic_write, write_errors
from cskd.utils.integrity import CHECKSUMS, Damaged, find_damage, read_json, write_checksums, write_json
from experiments.config.spec import RunSpec
from experiments.runs.lease import LeasedFolder
from experiments.runs.summary import summarise

MISSING, RUNNING, INTERRUPTED, FAILED, DONE = "missing", "running", "interrupted", "failed", "done"
HEARTBEAT_LIMIT = 60.0  # seconds without a heartbeat after which a running process counts as dead
ABSENT = (FileNotFoundError, NotADirectoryError)


class RunFolder(LeasedFolder):
    """The files of one run; no other module knows their names."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.spec_file = path / "spec.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self._previous = path / "previous.pt"  # named by cskd.train.checkpoint
        self.predictions = path / "predictions.npz"
        self.evaluation = path / "evaluation.npz"
        self.weights = path / "weights.pt"
        self.summary_file = path / "summary.json"
        self.log = path / "log.txt"
        self._state = path / "state.json"

    @classmethod
    def of(cls, spec: RunSpec, runs_dir: Path) -> "RunFolder":
        return cls(runs_dir / spec.run_key)

    # spec and environment

    def create(self, spec: RunSpec) -> None:
        """Create the folder with its spec; replace a damaged spec."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self.spec()
            except UserError:
                write_json(self.spec_file, spec.model_dump(mode="json"))
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): set RUNS_DIR") from error

    def spec(self) -> RunSpec:
        """Return the run's spec. Raises UserError if it is missing or damaged: its run key is the folder's name."""
        try:
            spec = RunSpec.model_validate(read_json(self.spec_file))
            if spec.run_key != self.path.name:
                raise Damaged(self.spec_file)
            return spec
        except (*ABSENT, ValueError) as error:  # includes Damaged
            message = f"{self.spec_file} is missing, damaged, or of another version"
            raise UserError(f"{message}: launch its grid again") from error

    def training_id(self) -> str:
        """Return the identity of the training, "" before the first start; resuming keeps it."""
        return self._read_environment()["training_id"]

    def starts(self) -> list[dict[str, Any]]:
        """Return what ``environment.describe`` recorded at each start of this training."""
        return self._read_environment()["starts"]

    def write_environment(self, training_id: str, starts: list[dict[str, Any]]) -> None:
        content = {"training_id": training_id, "starts": starts}
        write_json(self.environment, content, before_replace=self.before_replace)

    def _read_environment(self) -> dict[str, Any]:
        try:
            content = read_json(self.environment)
            if not (content["training_id"] and content["starts"]):
                raise Damaged(self.environment)
            return content
        except ABSENT:
            return {"training_id": "", "starts": []}
        except (Damaged, KeyError) as error:
            raise UserError(f"{self.environment} is damaged: the next launch trains the run again") from error

    # epochs

    def epochs(self) -> list[dict[str, Any]]:
        """Return the records of the finished epochs: {"epoch": 0.., "timestamp": unix seconds, "metrics": {...}}."""
        try:
            records = [json.loads(line) for line in self.metrics.read_bytes().splitlines()]
            if not all(record["epoch"] == epoch and "metrics" in record for epoch, record in enumerate(records)):
                raise Damaged(self.metrics)
            return records
        except ABSENT:
            return []
        except (ValueError, TypeError, KeyError) as error:  # includes Damaged
            raise UserError(f"{self.metrics} is damaged: the next launch writes it again") from error

    def count_epochs(self) -> int:
        """Return the number of recorded epochs, 0 if the file is damaged."""
        return len(self._intact_epochs())

    def has_epochs(self) -> bool:
        """Return True if epochs were recorded, whether or not the file is intact."""
        return self.metrics.exists() and self.metrics.stat().st_size > 0

    def _intact_epochs(self) -> list[dict[str, Any]]:
        try:
            return self.epochs()
        except UserError:
            return []

    def write_epochs(self, records: list[dict[str, Any]]) -> None:
        """Replace the records by those of a checkpoint."""
        with atomic_write(self.metrics, before_replace=self.before_replace) as file:
            file.writelines(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records)

    # state

    def write_state(self, state: str, **details: Any) -> None:
        content = {"state": state, "heartbeat": time.time()} | details
        try:
            write_json(self._state, content, durable=state != RUNNING, before_replace=self.before_replace)
        except DiskFull:
            if not self._state.exists():
                raise
            # Overwriting needs no space. A crash meanwhile leaves a damaged file, which counts as interrupted.
            self.before_replace()
            with write_errors(self._state), self._state.open("r+b") as file:
                file.write(json.dumps(content).encode())
                file.truncate()

    def state(self) -> dict[str, Any]:
        """Return the recorded state, but "interrupted" for a running one without a heartbeat and without a lease."""
        state = self.recorded_state()
        # A heartbeat in the future does not count: the clock was set back.
        if state["state"] == RUNNING and abs(time.time() - state["heartbeat"]) > HEARTBEAT_LIMIT and not self.is_held():
            reason = f"interrupted: no heartbeat for {HEARTBEAT_LIMIT:.0f} s, killed?"
            return state | {"state": INTERRUPTED, "reason": reason}
        return state

    def recorded_state(self) -> dict[str, Any]:
        """Return the state that the latest process recorded, with its details; "reason" is always there.

        A run with a damaged state counts as interrupted.
        """
        try:
            content = read_json(self._state)
            if content["state"] not in (RUNNING, INTERRUPTED, FAILED, DONE) or "heartbeat" not in content:
                raise Damaged(self._state)
            return {"reason": content["state"]} | content
        except ABSENT:
            return {"state": MISSING, "reason": "not started"}
        except (Damaged, KeyError):
            reason = f"interrupted: {self._state.name} is damaged"
            return {"state": INTERRUPTED, "heartbeat": 0.0, "epoch": self.count_epochs(), "reason": reason}

    def begin(self, epoch: int, epochs: int) -> None:
        """Record that a process starts to train the run."""
        for file in (self.summary_file, self.path / CHECKSUMS):
            self.before_replace()
            file.unlink(missing_ok=True)
        self.write_state(RUNNING, reason="training", epoch=epoch, epochs=epochs)

    def end(self, state: str, reason: str) -> None:
        """Record how the training process ended: the summary, then the state. A complete run is always done."""
        if self.is_complete():
            self.finish()
            return
        with suppress(UserError):  # a damaged spec, a full disk: the state alone is written
            self._write_summary(state, reason)
        self._write_end(state, reason)

    def finish(self) -> None:
        """Mark the run as done. If the process dies in between, the next one calls this again."""
        reason = f"all {self.spec().settings.schedule.epochs} epochs"
        if not self.is_complete():
            self._write_summary(DONE, reason)
            files = (self.spec_file, self.environment, self.metrics, self.summary_file, self.predictions, self.weights)
            names = [file.name for file in files if file.exists()]
            write_checksums(self.path, names, before_replace=self.before_replace)
        self.remove_checkpoints()
        self._write_end(DONE, reason)

    def _write_end(self, state: str, reason: str) -> None:
        details = {"reason": reason, "epoch": self.count_epochs()}
        with suppress(UserError):
            details["epochs"] = self.spec().settings.schedule.epochs
        self.write_state(state, **details)

    def _write_summary(self, state: str, reason: str) -> None:
        write_json(self.summary_file, self._summarise(state, reason, time.time()), before_replace=self.before_replace)

    def summary(self) -> dict[str, Any]:
        """Return summary.json, or the same computed from the other files if the process died without writing it.

        The keys are those of ``experiments.runs.summary.summarise``. Raises UserError for damaged files.
        """
        state = self.state()
        try:
            summary = read_json(self.summary_file)
            if summary["state"] == state["state"]:
                return summary
        except (*ABSENT, Damaged, KeyError):
            pass
        return self._summarise(state["state"], state["reason"], state.get("heartbeat", 0.0))

    def _summarise(self, state: str, reason: str, ended: float) -> dict[str, Any]:
        return summarise(self.spec(), self._read_environment(), self._intact_epochs(), state, reason, ended)

    # results

    def damage(self) -> str | None:
        """Return "<file> is damaged" for a run that is done, None if it is intact. Reads all of its files.

        Predictions and weights that were deleted are not damage: users delete them to save space.
        """
        try:
            name = find_damage(self.path, removable=(self.predictions.name, self.weights.name))
        except ABSENT:
            return None
        return f"{name} is damaged" if name else None

    def is_complete(self) -> bool:
        """Return True if all results exist and are intact, independent of the recorded state."""
        return (self.path / CHECKSUMS).exists() and self.damage() is None

    def discard_damaged(self) -> None:
        """Mark a finished run with a damaged file as interrupted, so that it is trained again."""
        if self.state()["state"] != DONE:
            return
        with self.leased(patience=1.0) as lease:
            if lease and self.state()["state"] == DONE and (damage := self.damage()):
                if damage.startswith(self.environment.name):  # it may parse, with wrong values
                    self.environment.unlink()
                self.end(INTERRUPTED, f"interrupted: {damage}")

    # checkpoints

    def epochs_to_resume_from(self) -> int:
        """Return how many epochs a resumed run probably skips; the checkpoints are not read."""
        return self.count_epochs() if any(file.exists() for file in self._checkpoints()) else 0

    def _checkpoints(self) -> tuple[Path, Path]:
        return self.checkpoint, self._previous

    def remove_checkpoints(self) -> None:
        self.before_replace()
        for file in self._checkpoints():
            file.unlink(missing_ok=True)

    def remove_partial_files(self) -> None:
        """Remove what killed processes began to write. Only for the process that holds the lease."""
        for file in self.path.glob("*.part"):
            file.unlink(missing_ok=True)
