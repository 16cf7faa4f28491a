"""An MLflow tracking store, opened for reading."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment as MlflowExperiment
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from analysis.load.cache import load_cached, store_cached
from analysis.load.frames import DONE, SAFE_FILE_NAME, Experiment, read_experiment, tracked_value
from cskd.evaluate.predictions import Predictions, load_predictions
from cskd.utils.cli import check_choice
from cskd.utils.databases import SQLITE, schema_problem, server_lock, sqlite_path, view_link
from cskd.utils.errors import UserError, first_line, is_s3_error, without_password
from cskd.utils.files import exclusive
from cskd.utils.integrity import read_json

FIRST_RUNS = "run 'make demo' or 'make reproduce-table1 PROFILE=mini' first"
PREDICTIONS = "predictions.npz"  # in a run folder, and as an artifact
EVALUATION = "evaluation.npz"  # beside the predictions
ENVIRONMENT = "environment.json"  # in a run folder; has its training_id
ARTIFACTS = "mlartifacts"  # the folder beside an SQLite database
HISTORY = "history"  # the folder in the cache of a run, with a file for each metric
LOCAL_UI = "http://127.0.0.1:5000"
PAGE = 100  # runs of one reply: a busy server takes 10 s and longer to send 1,000


class UnusableRun(Exception):
    """A run whose predictions or history are missing or damaged. The message is one line that names the run."""


class Store:
    """A tracking store. An experiment is identified by its tag ``experiment``; its MLflow name is only a label.

    runs_dir: the run folders of this machine, if there are any. Raises UserError if there is no store or it cannot be
    read.
    """

    def __init__(self, uri: str, runs_dir: Path | None = None):
        database = sqlite_path(uri)
        if database is not None and not database.is_file():  # MLflow would create an empty database
            raise UserError(f"nothing is tracked yet, {database} does not exist: {FIRST_RUNS}")
        self.uri = uri
        self._runs_dir = runs_dir
        self._artifacts = database.with_name(ARTIFACTS) if database else None
        self._copy = tempfile.TemporaryDirectory()  # for a database that cannot be written; deleted with this object
        try:
            self.client, experiments = _open(uri, database, Path(self._copy.name))
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # ImportError: no driver
            problem = schema_problem(uri, "mlflow")
            problem = problem or f"cannot be read ({first_line(error)}): correct it or start its server"
            raise UserError(without_password(f"MLFLOW_TRACKING_URI={uri} {problem}")) from error
        self._tags = {experiment.experiment_id: experiment.tags for experiment in experiments}
        self._cells = self._by_name(self.runs_of_kind("cell"))

    def experiments(self) -> list[str]:
        """Return the names of all tracked grids, sorted."""
        return sorted(self._cells)

    def load(self, names: list[str] | None = None) -> list[Experiment]:
        """Return the experiments with these names, or all.

        Of all, those that cannot be used are left out, with a note. Raises UserError for unknown names, if a named one
        cannot be used, or if there is none.
        """
        tracked = self.experiments()
        if not tracked:
            raise UserError(f"the tracking store holds no grid: {FIRST_RUNS}")
        is_all = not names
        names = tracked if is_all else [check_choice("experiment", name, tracked) for name in dict.fromkeys(names)]
        ids = {run.info.experiment_id for name in names for run in self._cells[name]}
        runs = self._by_name(self._runs(sorted(ids), "run"))
        if not runs:
            raise UserError(f"no run is tracked in {', '.join(names)}: launch it, or 'make sync' if its runs are here")
        experiments, problems = [], []
        for name in names:
            try:
                experiments.append(self._experiment(name, self._cells[name], runs.get(name, [])))
            except UserError as error:
                problems.append(error)
        if problems and not (is_all and experiments):
            raise problems[0]
        if problems:
            notes = (*experiments[0].notes, *(f"{problem}: left out." for problem in problems))
            experiments[0] = replace(experiments[0], notes=notes)
        return experiments

    def runs_of_kind(self, kind: str) -> list[Run]:
        """Return every MLflow run whose tag ``kind`` has this value: cell, run, study or trial."""
        return self._runs(list(self._tags), kind)

    def artifact(self, run: Run, name: str) -> bytes | None:
        """Return the content of a small artifact, or None if there is none."""
        local = self._local_artifacts(run.info.artifact_uri)
        if local is not None:
            return (local / name).read_bytes() if (local / name).is_file() else None
        if name not in {item.path for item in self.client.list_artifacts(run.info.run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run.info.run_id, name, folder)).read_bytes()

    def address(self, experiment_id: str, run_id: str) -> str:
        """Return the address of a run in the MLflow UI: on the tracking server, or as ``make ui`` serves it."""
        server = self.uri if self.uri.startswith(("http://", "https://")) else LOCAL_UI
        return f"{without_password(server).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def cells_address(self, experiment_id: str) -> str:
        """Return the address of an experiment's table of cells in the MLflow UI."""
        return view_link(self.uri, experiment_id, "cells")

    def predictions_file(self, run: pd.Series, cache: Path) -> Path:
        """Return the path of a run's predictions. ``run`` is a row of ``Experiment.runs``.

        A run folder with the same training is used first, then the run's artifact. A server's artifact is downloaded
        once to ``cache``. Raises UnusableRun if there are no predictions.
        """
        if path := self._in_run_folder(run):
            return path
        with _unusable(run):
            local = self._local_artifacts(run.artifact_uri)
            path = self._download(run.run_id, cache) if local is None else local / PREDICTIONS
            path.stat()
        return path

    def load_predictions(self, run: pd.Series, cache: Path) -> Predictions:
        """Return a run's predictions; see ``predictions_file``. Raises UnusableRun if they are missing or damaged."""
        path = self.predictions_file(run, cache)
        with _unusable(run):
            predictions = load_predictions(path)
        if not np.isfinite(predictions.logits).all():
            raise UnusableRun(f"{run.run} has predictions with NaN or infinite values")
        return predictions

    def load_history(self, run: pd.Series, names: Sequence[str], cache: Path) -> pd.DataFrame:
        """Return tracked metrics of a run: one row per epoch (the index, from 0), one column per name.

        Raises UnusableRun if a metric was never tracked or the store does not answer.
        """
        try:
            columns = {name: self._history(run, name, cache) for name in names}
        except (MlflowException, SQLAlchemyError) as error:
            raise UnusableRun(f"{run.run} has a history that cannot be read ({first_line(error)})") from error
        missing = [name for name, values in columns.items() if values.empty]
        if missing:
            raise UnusableRun(f"{run.run} has no history of {', '.join(missing)}")
        return pd.DataFrame(columns).sort_index().rename_axis("epoch")

    def _in_run_folder(self, run: pd.Series) -> Path | None:
        """Return the predictions in the run's folder on this machine, or None unless they are of the same training."""
        if self._runs_dir is None or not SAFE_FILE_NAME.fullmatch(run.run_key):
            return None
        folder = self._runs_dir / run.run_key
        try:
            training_id = read_json(folder / ENVIRONMENT)["training_id"]
        except (OSError, ValueError, KeyError):
            return None
        path = folder / PREDICTIONS
        return path if training_id == run.training_id and path.is_file() else None

    def _local_artifacts(self, uri: str) -> Path | None:
        """Return the folder of a run's artifacts, or None if a server has them.

        MLflow stores absolute addresses. If the project was moved or copied, the folder beside the database is used.
        """
        address = urlparse(uri)
        if address.scheme not in ("", "file"):
            return None
        path = Path(unquote(address.path))
        _, found, inside = path.as_posix().rpartition(f"/{ARTIFACTS}/")
        if self._artifacts is not None and found and (self._artifacts / inside).exists():
            return self._artifacts / inside
        return path

    def _experiment(self, name: str, cells: list[Run], runs: list[Run]) -> Experiment:
        tags = self._tags[cells[0].info.experiment_id]
        try:
            tuned, overrides = json.loads(tags["tuned"]), tuple(map(str, json.loads(tags["overrides"])))
        except (KeyError, ValueError, TypeError) as error:  # untagged, changed settings would pass as the recipe's
            problem = "its tag tuned or overrides is missing or invalid"
            raise UserError(f"experiment {name}: {problem}: 'make sync' corrects it if its runs are here") from error
        return read_experiment(name, cells, runs, tuned, overrides)

    def _by_name(self, runs: list[Run]) -> dict[str, list[Run]]:
        """Return the runs by their experiment's tag ``experiment``; skip experiments without a valid tag."""
        groups: dict[str, list[Run]] = {}
        for run in runs:
            name = self._tags[run.info.experiment_id].get("experiment", "")
            if SAFE_FILE_NAME.fullmatch(name):  # it becomes the name of a folder
                groups.setdefault(name, []).append(run)
        return groups

    def _history(self, run: pd.Series, name: str, cache: Path) -> pd.Series:
        """Return the metric's value by epoch, empty if there is none. If an epoch was logged twice, the later counts.

        Each metric costs one request, so the metrics of finished runs are cached.
        """
        path = cache / run.run_id / HISTORY / f"{name}.npz"
        arrays = load_cached(path)
        if arrays is None:
            points = self.client.get_metric_history(run.run_id, name)
            points = sorted(points, key=lambda point: (point.step, point.timestamp))
            values = {point.step: tracked_value(point.value) for point in points}
            arrays = {"epochs": np.array(list(values), int), "values": np.array(list(values.values()), float)}
            if run.state == DONE and values:
                store_cached(path, arrays)
        return pd.Series(arrays["values"], arrays["epochs"])

    def _download(self, run_id: str, cache: Path) -> Path:
        path = cache / run_id / PREDICTIONS
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # An interrupted download must not leave a partial file under the final name.
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                Path(self.client.download_artifacts(run_id, PREDICTIONS, folder)).replace(path)
        return path

    def _runs(self, experiment_ids: list[str], kind: str) -> list[Run]:
        query = {"experiment_ids": experiment_ids, "filter_string": f"tags.kind = '{kind}'"}
        return _all_pages(self.client.search_runs, **query)


def _open(uri: str, database: Path | None, copy: Path) -> tuple[MlflowClient, list[MlflowExperiment]]:
    """Return a client of the store, and its experiments. copy: the folder for a copy of a read-only database."""
    # Another process may be creating or upgrading the database.
    lock = database.with_name(f"{database.name}.lock") if database else None
    with exclusive(lock) if lock and os.access(lock, os.W_OK) else server_lock(uri):
        if database is not None and not _is_writable(database):  # SQLite and MLflow write where they only read
            for file in (database, database.with_name(f"{database.name}-wal")):  # the write-ahead log is a part of it
                if file.exists():
                    shutil.copyfile(file, copy / file.name)
            uri = f"{SQLITE}{copy / database.name}"
        client = MlflowClient(uri)
        return client, _all_pages(client.search_experiments)


def _is_writable(database: Path) -> bool:
    """Return whether SQLite can write the database and the files that it makes beside it."""
    return os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)


def _all_pages(search, **query) -> list:
    items, token = [], None
    while True:
        page = search(max_results=PAGE, page_token=token, **query)
        items += page
        token = page.token
        if not token:
            return items


@contextmanager
def _unusable(run: pd.Series) -> Iterator[None]:
    """Turn the errors of a missing or damaged predictions file into UnusableRun."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnusableRun(f"{run.run} has no {PREDICTIONS}") from error
    except Exception as error:
        if not (isinstance(error, (ValueError, KeyError, OSError, MlflowException)) or is_s3_error(error)):
            raise
        raise UnusableRun(f"{run.run} has a {PREDICTIONS} that cannot be read ({first_line(error)})") from error
