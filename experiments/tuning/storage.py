"""Where Optuna keeps studies: the address, what is there, and what it throws as one line."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, get_storage

from cskd.utils.cli import runs_dir
from cskd.utils.errors import UserError, first_line, without_password
from cskd.utils.files import write_errors
from experiments.tuning.journal import journal
from experiments.tuning.trial import STATES, Trial, best_of, trial_of

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage_address() -> str:
    """Where studies live: ``OPTUNA_STORAGE``, a URL or a journal file, or the journal in RUNS_DIR."""
    return os.environ.get("OPTUNA_STORAGE") or str(runs_dir() / "studies" / "journal.log")


def is_there(address: str) -> bool:
    """Whether there is a file at the address; a database on a server is taken to be there."""
    path = re.sub(r"^sqlite(\+\w+)?:///", "", address).partition("?")[0]
    with storage_errors(address):
        return "://" in path or Path(path).is_file()


def study_names(address: str) -> list[str]:
    with storage_errors(address):
        return sorted(optuna.get_all_study_names(open_storage(address)))


def open_storage(address: str) -> BaseStorage:
    """The storage at an address: a journal file, or the URL of a database. Raises UserError if it cannot be used."""
    with storage_errors(address):
        if "://" in address:
            return get_storage(address)
        path = Path(address)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(journal(path))


@contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """What a storage throws, whatever its kind, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # SQLAlchemy, its drivers, JSON and Optuna each have their own; all mean that the storage cannot be used.
        message = f"OPTUNA_STORAGE={address} cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(message)) from error


@contextmanager
def storage_lost(address: str) -> Iterator[None]:
    """A database that goes away while a study goes on, as one line."""
    try:
        yield
    except StorageInternalError as error:
        message = f"OPTUNA_STORAGE={address} is away ({first_line(error)}): the same command goes on when it is back"
        raise UserError(without_password(message)) from error


def load_trials(address: str, name: str) -> tuple[tuple[str, ...], list[Trial]]:
    """(objectives, trials) of a study, without taking part in it."""
    with storage_errors(address):
        study = optuna.load_study(study_name=name, storage=open_storage(address))
        trials = [trial_of(one) for one in study.get_trials(deepcopy=False) if one.state in STATES]
        return tuple(study.user_attrs["objectives"]), trials


def load_study(address: str, name: str) -> tuple[tuple[str, ...], list[Trial], Trial | None]:
    """Return (objectives, trials, best trial) of a study, as the uploader needs them."""
    objectives, trials = load_trials(address, name)
    return objectives, trials, best_of(trials)
