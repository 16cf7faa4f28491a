"""One study in Optuna's storage: the only module that writes there.

A process owns each trial that it asked for until it tells the result, and holds a lock file while it runs. If the
owner of a trial has died, the next process that asks gets this trial, with its number and parameters. The runs of the
trial resume from their checkpoints.
"""

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.files import exclusive, write_errors
from cskd.utils.seeding import derived_seed
from experiments.tuning.space import Point, Space
from experiments.tuning.storage import open_storage, storage_errors, storage_exists, study_names
from experiments.tuning.trial import STATES, Trial, trial_of

DEFAULT_SAMPLER = "gp"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {  # from a seed; a new sampler is made for every trial
    "gp": lambda seed: GPSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
GRID = "grid"  # all points are enqueued, so no sampler is used
HEARTBEAT_SECONDS = 60.0  # between two heartbeats in the storage, for machines that cannot see the owner's lock
HEARTBEAT_LIMIT = 600.0  # seconds without a heartbeat after which the owner on another machine counts as dead
MIN_TRIALS_FOR_PRUNING = 4  # complete ones


class Study:
    """One study, and this process's trials of it. As a context manager it holds the owner's lock."""

    def __init__(self, address: str, name: str, folder: Path):
        """address: a journal file or a database URL. folder: of the lock files, on a disk shared by the processes."""
        self.address, self.name, self.folder = address, name, folder
        self.study: optuna.Study | None = None  # None before the study exists
        self.owner = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._lock = FileLock(self._owner_file(self.owner))
        self._owned: dict[int, optuna.Trial] = {}
        self._last_heartbeat = 0.0

    def open(self, identity: dict[str, Any], space: Space, objectives: tuple[str, ...], sampler: str) -> None:
        """Load or create the study. Raises UserError if a study of this name has another identity.

        identity: JSON values that must be equal for trials to be comparable.
        """
        self.space, self.objectives = space, objectives
        self.sampler = check_choice("sampler", sampler, [*SAMPLERS, GRID])
        with exclusive(self.folder.parent / "storage.lock"):  # two processes cannot create one database together
            storage = open_storage(self.address)
        with self._exclusive():
            self.study = optuna.create_study(
                study_name=self.name,
                storage=storage,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", identity)
                self.study.set_user_attr("objectives", list(objectives))
                self.study.set_metric_names(list(objectives))
            self._check_identity(identity)

    def open_read_only(self, identity: dict[str, Any]) -> None:
        """Load the study if it exists, to count its trials. Raises UserError as ``open``."""
        if not storage_exists(self.address) or self.name not in study_names(self.address):
            return
        with storage_errors(self.address):
            self.study = optuna.load_study(study_name=self.name, storage=open_storage(self.address))
            self._check_identity(identity)

    def _check_identity(self, identity: dict[str, Any]) -> None:
        expected = json.loads(json.dumps(identity))
        recorded = self.study.user_attrs.get("identity", expected)  # absent if the creating process died
        names = dict.fromkeys([*expected, *recorded])
        different = [name for name in names if expected.get(name) != recorded.get(name)]
        if different:
            raise UserError(
                f"study {self.name} has another {' and '.join(different)}: "
                "give STUDY=<a new name> for a new study, or repeat the old settings to continue this one"
            )

    def __enter__(self) -> "Study":
        path = self._owner_file(self.owner)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        return self

    def __exit__(self, *exception) -> None:
        # With unfinished trials the file stays, unlocked: other processes see at once that the owner is gone.
        if not self._owned:
            self._owner_file(self.owner).unlink(missing_ok=True)
        self._lock.release()

    # reading

    def trials(self) -> list[Trial]:
        """Return all started trials by number."""
        return [trial_of(frozen) for frozen in self._started()]

    def remaining(self, max_trials: int, *, retry: bool = False) -> int:
        """Return how many trials this process would run, trials of dead owners included.

        retry: count as after ``retry_failed``.
        """
        counted = self._count() - (len(self._failed()) if retry else 0)
        return max(0, max_trials - counted) + len(self.abandoned())

    def abandoned(self) -> list[int]:
        """Return the numbers of running trials whose owner is dead."""
        return [frozen.number for frozen in self._started() if self._is_abandoned(frozen)]

    def _frozen(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False) if self.study else []

    def _started(self) -> list[FrozenTrial]:
        return [frozen for frozen in self._frozen() if frozen.state in STATES]

    def _count(self) -> int:
        """Return the number of started trials; a failed trial that is retried does not count."""
        retried = self._retried()
        return sum(frozen.number not in retried for frozen in self._started())

    def _failed(self) -> list[FrozenTrial]:
        """Return the failed trials that are not retried."""
        retried = self._retried()
        return [
            frozen for frozen in self._frozen() if frozen.state is TrialState.FAIL and frozen.number not in retried
        ]

    def _retried(self) -> set[int]:
        return {frozen.user_attrs["retry_of"] for frozen in self._frozen() if "retry_of" in frozen.user_attrs}

    # asking and telling

    def enqueue(self, points: list[Point]) -> None:
        """Enqueue the points that have no trial yet."""
        with self._exclusive():
            for point in points:
                self.study.enqueue_trial(point, skip_if_exists=True)

    def retry_failed(self) -> int:
        """Enqueue the points of failed trials again and return their number. The failed trials stay recorded."""
        with self._exclusive():
            failed = self._failed()
            for frozen in failed:
                self.study.enqueue_trial(frozen.params, user_attrs={"retry_of": frozen.number})
        return len(failed)

    def ask(self, max_trials: int) -> Trial | None:
        """Return a trial for this process to run: one of a dead owner, or a new one while there are fewer than
        ``max_trials``; else None.
        """
        with self._exclusive():
            for frozen in self._started():
                if self._is_abandoned(frozen):
                    self._set_sampler(frozen.number)
                    return self._own(optuna.Trial(self.study, frozen._trial_id))
            if self._count() >= max_trials:
                return None
            self._set_sampler(len(self._frozen()))
            return self._own(self.study.ask())

    def _set_sampler(self, number: int) -> None:
        """Seed the sampler from the trial's number, so that a study suggests the same points after a kill."""
        seed = derived_seed(0, f"tuning/{self.name}", number) % 2**32
        self.study.sampler = SAMPLERS[DEFAULT_SAMPLER if self.sampler == GRID else self.sampler](seed)

    def _own(self, trial: optuna.Trial) -> Trial:
        trial.set_user_attr("owner", self.owner)
        for name, axis in self.space.parameters.items():  # suggest keeps values that the trial already has
            if axis.choices:
                trial.suggest_categorical(name, axis.choices)
            else:
                trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        self._owned[trial.number] = trial
        return next(started for started in self.trials() if started.number == trial.number)

    def record_runs(self, number: int, runs: dict[int, str]) -> None:
        """Record the run key of each seed of a trial."""
        self._owned[number].set_user_attr("runs", {str(seed): key for seed, key in runs.items()})

    def write_heartbeat(self) -> None:
        """Write a heartbeat for each owned trial, at most every HEARTBEAT_SECONDS."""
        if time.monotonic() - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = time.monotonic()
            for trial in self._owned.values():
                trial.set_user_attr("heartbeat", time.time())

    def should_prune(self, number: int, epochs: int, value: float, warmup: int) -> bool:
        """Report a trial's value after ``epochs`` and return whether to prune it; never within ``warmup`` epochs."""
        trial = self._owned[number]
        if epochs not in self.study.get_trials(deepcopy=False)[number].intermediate_values:
            trial.report(value, epochs)
        self.study.pruner = MedianPruner(n_startup_trials=MIN_TRIALS_FOR_PRUNING, n_warmup_steps=warmup)
        return trial.should_prune()

    def complete(self, number: int, metrics: dict[str, float], values: tuple[float, ...]) -> None:
        self._owned[number].set_user_attr("metrics", metrics)
        self.study.tell(self._owned.pop(number), values)

    def prune(self, number: int) -> None:
        self.study.tell(self._owned.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self._owned[number].set_user_attr("reason", reason)
        self.study.tell(self._owned.pop(number), state=TrialState.FAIL)

    # ownership

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with exclusive(self.folder / "study.lock"), storage_errors(self.address):
            yield

    def _owner_file(self, owner: str) -> Path:
        return self.folder / f"{owner}.owner"

    def _is_abandoned(self, frozen: FrozenTrial) -> bool:
        running = frozen.state is TrialState.RUNNING and frozen.number not in self._owned
        return running and not self._owner_is_alive(frozen)

    def _owner_is_alive(self, frozen: FrozenTrial) -> bool:
        owner = frozen.user_attrs.get("owner")
        if owner is None:  # its process died inside ``ask``: a living one would hold the lock that we hold
            return False
        if not self._owner_file(owner).exists():  # another machine's
            heartbeat = frozen.user_attrs.get("heartbeat") or frozen.datetime_start.timestamp()
            return time.time() - heartbeat < HEARTBEAT_LIMIT
        try:
            with FileLock(self._owner_file(owner), blocking=False):
                return False
        except Timeout:
            return True
