"""A study: its trials, who works on which, and what came out. The only place that writes to Optuna's storage.

A trial is asked for with all its parameters and belongs to the process that asked, its owner, until it is told.
An owner holds a lock for as long as it lives. A trial whose owner is dead is taken over with its number and its
parameters; its runs go on from their checkpoints. So no trial is lost, and none is run by two.
"""

import fcntl
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.files import exclusive, write_errors
from cskd.utils.seeding import derived_seed
from experiments.tuning.samplers import DEFAULT_SAMPLER, SAMPLERS
from experiments.tuning.space import Point, Space
from experiments.tuning.storage import is_there, open_storage, storage_errors, study_names
from experiments.tuning.trial import STATES, Trial, trial_of

GRID = "grid"  # a regular grid instead of a sampler
HEARTBEAT_SECONDS = 60.0  # between two signs of life in the storage, for machines that cannot see the lock
SILENCE_LIMIT = 600.0  # seconds without one after which an owner on another machine counts as dead
PRUNER_STARTUP = 4  # complete trials before one can be pruned


class Study:
    """One study of a storage, and this process' part in it. Use as a context: it holds the owner's lock."""

    def __init__(self, address: str, name: str, folder: Path):
        """address: a journal file, or the URL of a database. folder: of the locks, shared by all that can be."""
        self.address, self.name = address, name
        self.folder = folder
        self.study: optuna.Study | None = None  # None: it has not been begun
        self.owner = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._mine: dict[int, optuna.Trial] = {}
        self._beaten = 0.0

    def open(self, identity: dict[str, Any], space: Space, objectives: tuple[str, ...], sampler: str) -> None:
        """Find the study or begin it. Raises UserError if the one of that name is another one.

        identity: everything that must be the same for trials to be compared, in JSON's types.
        """
        self.space, self.objectives = space, objectives
        self.sampler = check_choice("sampler", sampler, {**SAMPLERS, GRID: None})
        with exclusive(self.folder.parent / "storage.lock"):  # several processes that make a new database at once fail
            storage = open_storage(self.address)
        with self._alone():
            if self.name in optuna.get_all_study_names(storage):
                self.study = optuna.load_study(study_name=self.name, storage=storage)
            else:
                directions = ["minimize"] * len(objectives)
                self.study = optuna.create_study(study_name=self.name, storage=storage, directions=directions)
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", identity)
                self.study.set_user_attr("objectives", list(objectives))
                self.study.set_metric_names(list(objectives))
            self._refuse_another(identity)

    def look(self, identity: dict[str, Any]) -> None:
        """Read the study, if it has been begun, to count its trials; nothing is written. Raises UserError as open()."""
        if not is_there(self.address) or self.name not in study_names(self.address):
            return
        with storage_errors(self.address):
            self.study = optuna.load_study(study_name=self.name, storage=open_storage(self.address))
            self._refuse_another(identity)

    def _refuse_another(self, identity: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(identity))
        found = self.study.user_attrs.get("identity", wanted)  # not there: its process died before it had one
        if found != wanted:
            raise UserError(
                f"study {self.name} was begun with another {_difference(found, wanted)}: "
                "give STUDY=<a new name> to start anew, or the old settings to go on"
            )

    def __enter__(self) -> "Study":
        path = self._owner_file(self.owner)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._life = path.open("w")
        fcntl.flock(self._life, fcntl.LOCK_EX)
        return self

    def __exit__(self, *exception) -> None:
        # With trials left the file stays, unlocked: that says at once that they can be taken over.
        if not self._mine:
            self._owner_file(self.owner).unlink(missing_ok=True)
        self._life.close()

    # trials

    def trials(self) -> list[Trial]:
        """All trials that were begun, by their number."""
        return [trial_of(one) for one in self._frozen() if one.state in STATES]

    def enqueue(self, points: list[Point]) -> None:
        """Have these points tried next, each once; those that are already there are not tried again."""
        with self._alone():
            there = [self._point(one) for one in self._frozen()]
            for point in points:
                if point not in there:
                    there.append(point)
                    self.study.enqueue_trial(point)

    def retry_failed(self) -> int:
        """Have the points of failed trials tried again; returns how many there are. The failed ones stay recorded."""
        with self._alone():
            failed = self._failed()
            for one in failed:
                self.study.enqueue_trial(self._point(one))
            self.study.set_user_attr("retried", [*self._retried(), *(one.number for one in failed)])
        return len(failed)

    def take(self, count: int) -> Trial | None:
        """A trial for this process to run: one whose owner has died, or the next; None if there are ``count``.

        Complete, pruned and failed trials count, and those that somebody is at.
        """
        with self._alone():
            for one in self._frozen():
                if one.state is TrialState.RUNNING and one.number not in self._mine and not self._is_alive(one):
                    self._seed_sampler(one.number)
                    return self._own(optuna.Trial(self.study, one._trial_id))
            if self.used() >= count:
                return None
            self._seed_sampler(len(self._frozen()))
            return self._own(self.study.ask())

    def used(self) -> int:
        """How many trials count against the number wanted; a failed one that is tried again does not."""
        retried = self._retried()
        return sum(one.state in STATES and one.number not in retried for one in self._frozen())

    def orphans(self) -> int:
        """How many trials have begun and belong to nobody who lives: they are to be taken over."""
        running = [one for one in self._frozen() if one.state is TrialState.RUNNING and one.number not in self._mine]
        return sum(not self._is_alive(one) for one in running)

    def left(self, count: int, *, retry: bool = False) -> int:
        """How many trials are to do of ``count``, those included that are taken over.

        retry: counted as if ``retry_failed`` had been called.
        """
        used = self.used() - (len(self._failed()) if retry else 0)
        return max(0, count - used) + self.orphans()

    def _failed(self) -> list[FrozenTrial]:
        """The failed trials that are not tried again yet."""
        before = self._retried()
        return [one for one in self._frozen() if one.state is TrialState.FAIL and one.number not in before]

    def _retried(self) -> list[int]:
        return self.study.user_attrs.get("retried", []) if self.study else []

    def _seed_sampler(self, number: int) -> None:
        """From the number of the trial: a study that was killed suggests what it would have suggested."""
        seed = derived_seed(0, f"tuning/{self.name}", number) % 2**32
        self.study.sampler = SAMPLERS[DEFAULT_SAMPLER if self.sampler == GRID else self.sampler](seed)

    def _own(self, trial: optuna.Trial) -> Trial:
        trial.set_user_attr("owner", self.owner)
        for name, axis in self.space.parameters.items():  # a value that the trial has already stays
            if axis.choices:
                trial.suggest_categorical(name, axis.choices)
            else:
                trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        self._mine[trial.number] = trial
        return self._one(trial.number)

    def record_runs(self, number: int, runs: dict[int, str]) -> None:
        """Which run folders make up a trial: seed -> run key."""
        self._mine[number].set_user_attr("runs", {str(seed): key for seed, key in runs.items()})

    def beat(self) -> None:
        """A sign of life for each of this process' trials, now and then."""
        if time.monotonic() - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            for trial in self._mine.values():
                trial.set_user_attr("heartbeat", time.time())

    def report(self, number: int, epochs: int, value: float, after: int) -> bool:
        """Tell the pruner where a trial stands; whether it should be pruned. Never before ``after`` epochs."""
        trial = self._mine[number]
        if epochs not in self._frozen_one(number).intermediate_values:
            trial.report(value, epochs)
        self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=PRUNER_STARTUP, n_warmup_steps=after)
        return trial.should_prune()

    def complete(self, number: int, metrics: dict[str, float], values: list[float]) -> None:
        self._mine[number].set_user_attr("metrics", metrics)
        self._flush_metrics(number, values=values)

    def prune(self, number: int) -> None:
        self._flush_metrics(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self._mine[number].set_user_attr("reason", reason)
        self._flush_metrics(number, state=TrialState.FAIL)

    def _flush_metrics(self, number: int, **outcome: Any) -> None:
        self.study.tell(self._mine[number], **outcome)
        del self._mine[number]

    # who is at it

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with exclusive(self.folder / "study.lock"), storage_errors(self.address):
            yield

    def _owner_file(self, owner: str) -> Path:
        return self.folder / f"{owner}.owner"

    def _is_alive(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("owner")
        if owner is None:  # asked for by a process that died at once: it would hold the lock that we have
            return False
        path = self._owner_file(owner)
        if not path.exists():
            last = trial.user_attrs.get("heartbeat") or trial.datetime_start.timestamp()
            return time.time() - last < SILENCE_LIMIT
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    # reading

    def _frozen(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False) if self.study else []

    def _frozen_one(self, number: int) -> FrozenTrial:
        return next(one for one in self._frozen() if one.number == number)

    def _one(self, number: int) -> Trial:
        return trial_of(self._frozen_one(number))

    def _point(self, trial: FrozenTrial) -> Point:
        return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [name for name in wanted if found.get(name) != wanted[name]] + [
        name for name in found if name not in wanted
    ]
    return " and ".join(dict.fromkeys(names))
