"""The storage of studies: its address, the journal file, and its errors as one line."""

import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import NOT_FOUND_MSG

from cskd.utils.cli import runs_dir
from cskd.utils.databases import absolute_address, schema_problem, server_lock
from cskd.utils.errors import UserError, first_line, without_password
from cskd.utils.files import atomic_write, exclusive, write_errors
from experiments.tuning.trial import STATES, Trial, best_of, trial_of

RUNS_DIR_ID = "runs_dir_id"  # a file: processes of one study must share RUNS_DIR, and can then read the same name there

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage_address() -> str:
    """Return ``OPTUNA_STORAGE``, a database URL or a journal file, or the journal file in RUNS_DIR."""
    address = os.environ.get("OPTUNA_STORAGE") or str(runs_dir() / "studies" / "journal.log")
    return absolute_address(address) if "://" in address else str(Path(address).absolute())


def storage_exists(address: str) -> bool:
    """Return whether the file of a storage exists. A database server counts as existing."""
    path = re.sub(r"^sqlite(\+\w+)?:///", "", address).partition("?")[0]
    with storage_errors(address):
        return "://" in path or Path(path).is_file()


def open_storage(address: str) -> BaseStorage:
    """Open or create the storage. Raises UserError if it cannot be used."""
    with storage_errors(address):
        if "://" in address:
            with server_lock(address):
                return get_storage(address)
        path = Path(address)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(open_journal(path))


def study_names(address: str) -> list[str]:
    with storage_errors(address):
        return sorted(optuna.get_all_study_names(open_storage(address)))


def runs_dir_id(studies: Path) -> str:
    """Return the random name that the first study gave to a RUNS_DIR, "" if there was none. studies: a folder in it."""
    try:
        return (studies / RUNS_DIR_ID).read_text()
    except FileNotFoundError:
        return ""


def ensure_runs_dir_id(studies: Path) -> str:
    """Return the name of a RUNS_DIR; give it one if it has none."""
    with exclusive(studies / f"{RUNS_DIR_ID}.lock"):
        if not runs_dir_id(studies):
            with atomic_write(studies / RUNS_DIR_ID) as file:
                file.write(secrets.token_hex(8).encode())
        return runs_dir_id(studies)


def is_of_runs_dir(address: str, name: str, studies: Path) -> bool:
    """Return whether the runs of a study are in this RUNS_DIR. studies: a folder in it."""
    with storage_errors(address):
        study = optuna.load_study(study_name=name, storage=open_storage(address))
        return study.user_attrs.get("identity", {}).get("RUNS_DIR") == runs_dir_id(studies)


def load_study(address: str, name: str) -> tuple[tuple[str, ...], list[Trial], Trial | None]:
    """Return (objectives, started trials, best trial) of a study, read-only."""
    with storage_errors(address):
        study = optuna.load_study(study_name=name, storage=open_storage(address))
        trials = [trial_of(frozen) for frozen in study.get_trials(deepcopy=False) if frozen.state in STATES]
        return tuple(study.user_attrs["objectives"]), trials, best_of(trials)


@contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Turn every error of a storage into a UserError."""
    try:
        with storage_lost(address):
            yield
    except UserError:
        raise
    except Exception as error:
        # SQLAlchemy, database drivers, JSON and Optuna raise different classes without a common base.
        problem = schema_problem(address, "optuna") if "://" in address else None
        problem = problem or f"cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(f"OPTUNA_STORAGE={address} {problem}")) from error


@contextmanager
def storage_lost(address: str) -> Iterator[None]:
    """Turn the error of a study that was deleted, or of a database that became unreachable, into a UserError."""
    try:
        yield
    except StorageInternalError as error:
        message = f"OPTUNA_STORAGE={address} is unreachable ({first_line(error)}): repeat the command when it is back"
        raise UserError(without_password(message)) from error
    except KeyError as error:
        if error.args != (NOT_FOUND_MSG,):
            raise
        message = f"the study was deleted from OPTUNA_STORAGE={address}: repeat the command to start it again"
        raise UserError(without_password(message)) from error


def open_journal(path: Path) -> JournalFileBackend:
    """Open or create a journal file."""
    return JournalFileBackend(str(path), lock_obj=JournalLock(path))


class JournalLock:
    """A kernel lock on a journal file.

    Optuna's own locks are files: after a kill, all processes wait 30 s for the lock of the dead one.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        self._remove_incomplete_line()
        return True

    def release(self) -> None:
        self._lock.release()

    def _remove_incomplete_line(self) -> None:
        """Remove the incomplete last line of a killed process: Optuna would append the next record to it."""
        with self.path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
