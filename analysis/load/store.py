"""The tracking store, read: which experiments there are, and what their runs left. Nothing is written to it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from analysis.load.cache import keep, load_kept
from analysis.load.frames import DONE, Experiment, experiment_of, tracked_value
from cskd.evaluate.predictions import Predictions, load_predictions
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError, first_line, without_password
from cskd.utils.files import exclusive

FIRST_RUNS = "'make demo' or 'make reproduce-table1 PROFILE=mini' makes some"
PREDICTIONS = "predictions.npz"
HISTORY = "history.npz"  # in the cache
LOCAL_UI = "http://127.0.0.1:5000"


class UnusableRun(Exception):
    """A run that lacks what it should have: one line that names the run and what is wrong."""


class Store:
    """A tracking store, opened for reading. Raises UserError where there is none."""

    def __init__(self, uri: str):
        path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        self.uri = uri
        try:
            if path is not None and not path.is_file():
                # MLflow would make an empty database of it
                raise UserError(f"nothing is tracked yet, {path} does not exist: {FIRST_RUNS}")
            # A database that another process is just making or upgrading must not be touched.
            lock = path.with_name(f"{path.name}.lock") if path else None
            with exclusive(lock) if lock and os.access(lock, os.W_OK) else nullcontext():
                self.client = MlflowClient(uri)
                found = self._pages(self.client.search_experiments)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            message = f"MLFLOW_TRACKING_URI={uri} cannot be read ({first_line(error)}): correct it, or start its server"
            raise UserError(without_password(message)) from error
        self._ids = {experiment.name: experiment.experiment_id for experiment in found}
        self._overrides = {experiment.name: experiment.tags.get("overrides", "") for experiment in found}
        self._launched = {experiment.name: int(experiment.tags.get("launched", 0)) for experiment in found}
        cells = self._runs(list(self._ids.values()), "cell")
        self._cells = {
            name: [run for run in cells if run.info.experiment_id == number] for name, number in self._ids.items()
        }

    def experiments(self) -> list[str]:
        """The names of all experiments that hold cells of a grid, sorted."""
        return sorted(name for name, cells in self._cells.items() if cells)

    def latest(self) -> str:
        """The experiment that a grid was launched into last. Raises UserError where there is none."""
        every = self.experiments()
        if not every:
            raise UserError(f"the tracking store holds no grid: {FIRST_RUNS}")
        return max(every, key=self._launched.__getitem__)

    def load(self, names: list[str] | None = None) -> list[Experiment]:
        """The experiments of these names, or all. Raises UserError for unknown ones, and if none has a run."""
        every = self.experiments()
        if not every:
            raise UserError(f"the tracking store holds no grid: {FIRST_RUNS}")
        names = [check_choice("experiment", name, every) for name in dict.fromkeys(names)] if names else every
        runs = self._runs([self._ids[name] for name in names], "run")
        if not runs:
            raise UserError(f"no run has been tracked in {', '.join(names)}: {FIRST_RUNS}")
        own = {name: [run for run in runs if run.info.experiment_id == self._ids[name]] for name in names}
        return [experiment_of(name, self._cells[name], own[name], self._overrides[name]) for name in names]

    def runs_of_kind(self, kind: str) -> list[Run]:
        """Every run of the store with this ``kind`` among its tags: cell, run, study, trial."""
        return self._runs(list(self._ids.values()), kind)

    def artifact(self, run_id: str, name: str) -> bytes:
        """The content of a small artifact. Raises MlflowException where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, name, folder)).read_bytes()

    def address(self, experiment: str, run_id: str) -> str:
        """Where the MLflow UI shows a run: on the tracking server, or where ``make ui`` has it."""
        server = self.uri if self.uri.startswith(("http://", "https://")) else LOCAL_UI
        return f"{without_password(server).rstrip('/')}/#/experiments/{self._ids[experiment]}/runs/{run_id}"

    def predictions_file(self, run: pd.Series, cache: Path) -> Path:
        """Where the predictions of a row of ``Experiment.runs`` are.

        Artifacts on this machine are read where they are; others are downloaded to ``cache`` and kept there.
        Raises UnusableRun where there are none.
        """
        with _usable(run):
            local = _is_local(run.artifact_uri)
            path = _local_path(run.artifact_uri) / PREDICTIONS if local else self._downloaded(run.run_id, cache)
            path.stat()
        return path

    def load_predictions(self, run: pd.Series, cache: Path) -> Predictions:
        """The predictions of a row of ``Experiment.runs``. cache: see ``predictions_file``.

        Raises UnusableRun where they are missing or broken.
        """
        path = self.predictions_file(run, cache)
        with _usable(run):
            predictions = load_predictions(path)
        if not np.isfinite(predictions.logits).all():
            raise UnusableRun(f"{run.run} has predictions with NaN or infinite values")
        return predictions

    def load_history(self, run: pd.Series, names: Sequence[str], cache: Path) -> pd.DataFrame:
        """Tracked metrics of a row of ``Experiment.runs``: a row an epoch (from 0, the index), a column a name.

        A finished run's are kept in ``cache``: they do not change any more, and each costs the store a question.
        Raises UnusableRun where a metric was never tracked or the store does not answer.
        """
        path = cache / run.run_id / HISTORY
        found = load_kept(path)
        if found is not None and set(names) <= set(found):
            return pd.DataFrame({name: found[name] for name in names}, pd.Index(found["epoch"], name="epoch"))
        try:
            columns = {name: self._history(run.run_id, name) for name in names}
        except (MlflowException, SQLAlchemyError) as error:
            raise UnusableRun(f"{run.run} has a history that cannot be read ({first_line(error)})") from error
        lacking = [name for name, values in columns.items() if not values]
        if lacking:
            raise UnusableRun(f"{run.run} has no history of {', '.join(lacking)}")
        history = pd.DataFrame(columns).sort_index().rename_axis("epoch")
        if run.state == DONE:
            keep(path, {"epoch": history.index.to_numpy()} | {name: history[name].to_numpy() for name in names})
        return history

    def _history(self, run_id: str, name: str) -> dict[int, float]:
        """The value of each epoch; of an epoch that was tracked twice, the later."""
        points = sorted(self.client.get_metric_history(run_id, name), key=lambda point: (point.step, point.timestamp))
        return {point.step: tracked_value(point.value) for point in points}

    def _downloaded(self, run_id: str, cache: Path) -> Path:
        path = cache / run_id / PREDICTIONS
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # into a folder of its own first: a download that is cut off must not pass for one that is whole
            with tempfile.TemporaryDirectory(dir=path.parent) as aside:
                Path(self.client.download_artifacts(run_id, PREDICTIONS, aside)).replace(path)
        return path

    def _runs(self, experiment_ids: list[str], kind: str) -> list[Run]:
        return self._pages(
            self.client.search_runs, experiment_ids=experiment_ids, filter_string=f"tags.kind = '{kind}'"
        )

    @staticmethod
    def _pages(search, **query) -> list:
        found, token = [], None
        while True:
            page = search(max_results=1000, page_token=token, **query)
            found += page
            token = page.token
            if not token:
                return found


@contextmanager
def _usable(run: pd.Series) -> Iterator[None]:
    """What a missing or broken file of predictions comes to becomes an UnusableRun that names the run."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnusableRun(f"{run.run} has no {PREDICTIONS}") from error
    except (ValueError, KeyError, OSError, MlflowException) as error:
        raise UnusableRun(f"{run.run} has a {PREDICTIONS} that cannot be read ({first_line(error)})") from error


def _is_local(uri: str) -> bool:
    return urlparse(uri).scheme in ("", "file")


def _local_path(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))
