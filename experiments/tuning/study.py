"""One study in Optuna's storage: the only module that writes there.

A process owns each trial that it asked for until it tells the result, and holds a lease in RUNS_DIR while it runs. If
the owner of a trial dies, the next process that asks gets this trial, with its number and parameters, and its runs
resume from their checkpoints. All processes of a study must share RUNS_DIR: a study of another RUNS_DIR is refused.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from cskd.utils.cli import check_choice
from cskd.utils.databases import server_lock
from cskd.utils.errors import UserError
from cskd.utils.files import exclusive, write_errors
from cskd.utils.seeding import derived_seed
from experiments.runs.lease import LeasedFolder
from experiments.tuning.space import Point, Space
from experiments.tuning.storage import (
    ensure_runs_dir_id,
    open_storage,
    runs_dir_id,
    storage_errors,
    storage_exists,
    study_names,
)
from experiments.tuning.trial import STATES, Trial, format_objectives, trial_of, unit_of

DEFAULT_SAMPLER = "gp"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {  # from a seed; a new sampler is made for every trial
    "gp": lambda seed: GPSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
GRID = "grid"  # all points are enqueued, and no sampler is used
MIN_TRIALS_FOR_PRUNING = 4  # complete trials


class Study:
    """One study, and this process's trials of it. As a context manager it holds the owner's lease."""

    def __init__(self, address: str, name: str, folder: Path):
        """address: a journal file or a database URL. folder: holds the leases; all processes of the study share it."""
        self.address, self.name, self.folder = address, name, folder
        self.study: optuna.Study | None = None  # None before the study exists
        self.owner = uuid.uuid4().hex
        self._owned: dict[int, optuna.Trial] = {}
        self._lease = ExitStack()

    def open(self, identity: dict[str, Any], space: Space, objectives: tuple[str, ...], sampler: str) -> None:
        """Load or create the study. Raises UserError if a study of this name has another identity.

        identity: JSON values that must be equal for trials to be comparable.
        """
        self.space, self.objectives = space, objectives
        self.sampler = check_choice("sampler", sampler, [*SAMPLERS, GRID])
        with exclusive(self.folder.parent / "storage.lock"):  # two processes cannot create one database together
            storage = open_storage(self.address)
        identity = identity | {"RUNS_DIR": ensure_runs_dir_id(self.folder.parent)}
        with self._exclusive(), server_lock(self.address):
            self.study = optuna.create_study(
                study_name=self.name,
                storage=storage,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", identity)
                self.study.set_user_attr("objectives", list(objectives))
                self.study.set_metric_names([f"{name} ({unit_of(name)})".removesuffix(" ()") for name in objectives])
            self._check_identity(identity)

    def open_read_only(self, identity: dict[str, Any]) -> None:
        """Load the study if it exists, to count its trials. Raises UserError as ``open``."""
        if not storage_exists(self.address) or self.name not in study_names(self.address):
            return
        with storage_errors(self.address):
            self.study = optuna.load_study(study_name=self.name, storage=open_storage(self.address))
            self._check_identity(identity | {"RUNS_DIR": runs_dir_id(self.folder.parent)})

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
        folder = self._owner_folder(self.owner)
        with write_errors(folder.path):
            folder.path.mkdir(parents=True)
        self._lease.enter_context(folder.leased())
        return self

    def __exit__(self, *exception) -> None:
        self._lease.close()
        shutil.rmtree(self._owner_folder(self.owner).path, ignore_errors=True)

    # reading

    def trials(self) -> list[Trial]:
        """Return all started trials by number."""
        return [trial_of(frozen) for frozen in self._started()]

    def remaining(self, max_trials: int, *, retry: bool = False) -> int:
        """Return how many trials this process would run, including trials of dead owners.

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
        return [frozen for frozen in self._frozen() if frozen.state is TrialState.FAIL and frozen.number not in retried]

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
        """Return a trial to run: one whose owner died, or a new one if fewer than ``max_trials`` were started.

        Return None if there is no such trial.
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
        return trial_of(self._frozen()[trial.number])

    def record_runs(self, number: int, runs: dict[int, str]) -> None:
        """Record the run key of each seed of a trial."""
        self._owned[number].set_user_attr("runs", {str(seed): key for seed, key in runs.items()})

    def should_prune(self, number: int, epochs: int, value: float, warmup: int) -> bool:
        """Report a trial's value after ``epochs`` and return whether to prune it; never within ``warmup`` epochs."""
        trial = self._owned[number]
        if epochs not in self._frozen()[number].intermediate_values:
            trial.report(value, epochs)
        self.study.pruner = MedianPruner(n_startup_trials=MIN_TRIALS_FOR_PRUNING, n_warmup_steps=warmup)
        return trial.should_prune()

    def complete(
        self, number: int, metrics: dict[str, float], values: tuple[float, ...], standard_errors: dict[str, float]
    ) -> None:
        result = format_objectives(self.objectives, values, standard_errors)  # for optuna-dashboard
        attributes = {"metrics": metrics, "standard_errors": standard_errors, "result": result}
        self._tell(number, attributes, values=values)

    def prune(self, number: int) -> None:
        self._tell(number, {}, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self._tell(number, {"reason": reason}, state=TrialState.FAIL)

    def save_note(self, lines: list[str]) -> None:
        """Save lines that optuna-dashboard shows on the study's page."""
        from optuna_dashboard import save_note  # noqa: PLC0415 - slow, and only needed at the end

        with self._exclusive():
            save_note(self.study, "\n".join(f"- {line}" for line in lines))

    def _tell(self, number: int, attributes: dict[str, Any], **result: Any) -> None:
        """Record a trial's end, unless another process has taken it over while this process was suspended."""
        trial = self._owned.pop(number)
        with self._exclusive():
            if self._frozen()[number].user_attrs["owner"] != self.owner:
                return
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, **result)

    # ownership

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with exclusive(self.folder / "study.lock"), storage_errors(self.address):
            yield

    def _owner_folder(self, owner: str) -> LeasedFolder:
        return LeasedFolder(self.folder / "owners" / owner)

    def _is_abandoned(self, frozen: FrozenTrial) -> bool:
        if frozen.state is not TrialState.RUNNING or frozen.number in self._owned:
            return False
        # A trial without an owner: its process died inside ``ask``, whose lock this process holds now.
        owner = frozen.user_attrs.get("owner")
        return owner is None or not self._owner_folder(owner).is_held()
