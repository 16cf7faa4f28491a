"""Tracked cells and runs, read from MLflow into frames. Nothing is written to the store.

What cannot be used is left out and named in the notes, never dropped without a word.
"""

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

# A server that is away or hangs must be noticed in seconds, not in MLflow's default minutes; and no telemetry.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from analysis.metrics import METRICS
from cskd.cli import known, without_password
from cskd.errors import UserError, first_line
from cskd.files import locked, written_aside
from cskd.predictions import Predictions, load_predictions, load_training_predictions

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

FIRST_RUNS = "'make demo' or 'make reproduce-table1 PROFILE=mini' makes some"
CELL_TAGS = (
    "cell_key",
    "grid",
    "profile",
    "dataset",
    "architecture",
    "method",
    "seeds_planned",
    "grid_order",
    "comparable_with_paper",
)
CELL_MARKS = ("tuned", "hyper_parameters")  # what a table says of a row; "" where there is nothing to say
RUN_TAGS = ("run_key", "cell_key", "profile", "dataset", "architecture", "method", "seed", "comparable_with_paper")
STATE_TAGS = ("state", "reason", "git_commit", "git_dirty", "machine", "device", "precision")  # "" until known
# What a frame of runs has at least, whatever was tracked.
TEXTS = ("run", "run_id", "artifact_uri", *(tag for tag in RUN_TAGS if tag != "seed"), *STATE_TAGS)
DATES = ("started", "ended")
NUMBERS = (
    *("seed", "minutes", "best/epoch"),
    *(metric.last for metric in METRICS),
    *(metric.best for metric in METRICS if metric.at_best_epoch),
)
INFINITY = 1e300  # MLflow's databases keep an infinite value as the largest float
NAME = ["dataset", "architecture", "method"]
PREDICTIONS = "predictions.npz"
LOCAL_UI = "http://127.0.0.1:5000"
HISTORY = "history.npz"  # in the cache
DONE = "done"


class UnusableRun(Exception):
    """A run that lacks what it should have: one line that names the run and what is wrong."""


@dataclass(frozen=True)
class Experiment:
    """One grid under one profile, as tracked.

    cells: a row a cell in the grid's order, with columns CELL_TAGS (``seeds_planned`` a list, ``grid_order``
        an integer), ``tuned`` (hyper-parameters found by tuning, and where, or ""), ``hyper_parameters`` (whose
        the recipe's are: paper, ours, or "" for none) and ``cell`` (dataset/architecture/method).
    runs: a row a seed in the same order, with columns RUN_TAGS (``seed`` an integer), STATE_TAGS, ``run``
        (its name), ``run_id``, ``artifact_uri``, ``started`` and ``ended`` (UTC), ``minutes``, the metrics
        ``test/*`` (last epoch), ``best/*`` and what else is tracked, and the settings as ``params.*``.
    notes: what was left out, and why.
    """

    name: str
    cells: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def done(self) -> pd.DataFrame:
        """The runs that have results."""
        return self.runs[self.runs.state == DONE]


class Store:
    """A tracking store, opened for reading. Raises UserError where there is none."""

    def __init__(self, uri: str):
        path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        if path is not None and not path.is_file():
            # MLflow would make an empty database of it
            raise UserError(f"nothing is tracked yet, {path} does not exist: {FIRST_RUNS}")
        self.uri = uri
        try:
            # A database that another process is just making or upgrading must not be touched.
            lock = path.with_name(f"{path.name}.lock") if path else None
            with locked(lock) if lock and os.access(lock, os.W_OK) else nullcontext():
                self.client = MlflowClient(uri)
                found = self._pages(self.client.search_experiments)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            told = f"MLFLOW_TRACKING_URI={uri} cannot be read ({first_line(error)}): correct it, or start its server"
            raise UserError(without_password(told)) from error
        self._ids = {experiment.name: experiment.experiment_id for experiment in found}
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
        names = [known("experiment", name, every) for name in dict.fromkeys(names)] if names else every
        runs = self._runs([self._ids[name] for name in names], "run")
        if not runs:
            raise UserError(f"no run has been tracked in {', '.join(names)}: {FIRST_RUNS}")
        return [
            _experiment(name, self._cells[name], [run for run in runs if run.info.experiment_id == self._ids[name]])
            for name in names
        ]

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
        """The test predictions of a row of ``Experiment.runs``. cache: see ``predictions_file``.

        Raises UnusableRun where they are missing or broken.
        """
        path = self.predictions_file(run, cache)
        with _usable(run):
            predictions = load_predictions(path)
        if not np.isfinite(predictions.logits).all():
            raise UnusableRun(f"{run.run} has predictions with NaN or infinite values")
        return predictions

    def load_training_predictions(self, run: pd.Series, cache: Path) -> tuple[np.ndarray, np.ndarray] | None:
        """(logits, labels) of some training images of a run; None for one of an earlier version, which kept none.

        Raises UnusableRun as ``load_predictions``.
        """
        path = self.predictions_file(run, cache)
        with _usable(run):
            return load_training_predictions(path)

    def load_history(self, run: pd.Series, names: Sequence[str], cache: Path) -> pd.DataFrame:
        """Tracked metrics of a row of ``Experiment.runs``: a row an epoch (from 0, the index), a column a name.

        A finished run's are kept in ``cache``: they do not change any more, and each costs the store a question.
        Raises UnusableRun where a metric was never tracked or the store does not answer.
        """
        path = cache / run.run_id / HISTORY
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                if set(names) <= set(kept):
                    return pd.DataFrame({name: kept[name] for name in names}, pd.Index(kept["epoch"], name="epoch"))
        try:
            columns = {name: self._history(run.run_id, name) for name in names}
        except (MlflowException, SQLAlchemyError) as error:
            raise UnusableRun(f"{run.run} has a history that cannot be read ({first_line(error)})") from error
        lacking = [name for name, values in columns.items() if not values]
        if lacking:
            raise UnusableRun(f"{run.run} has no history of {', '.join(lacking)}")
        history = pd.DataFrame(columns).sort_index().rename_axis("epoch")
        if run.state == DONE:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as file:
                np.savez(file, epoch=history.index, **{name: history[name] for name in names})
        return history

    def _history(self, run_id: str, name: str) -> dict[int, float]:
        """The value of each epoch; of an epoch that was tracked twice, the later."""
        points = sorted(self.client.get_metric_history(run_id, name), key=lambda point: (point.step, point.timestamp))
        return {point.step: _value(point.value) for point in points}

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
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, MlflowException) as error:
        raise UnusableRun(f"{run.run} has a {PREDICTIONS} that cannot be read ({first_line(error)})") from error


def _experiment(name: str, cells: list[Run], runs: list[Run]) -> Experiment:
    """Frames of one experiment's cells and runs."""
    notes = []
    usable = []
    for run in cells:
        lacking = [tag for tag in CELL_TAGS if tag not in run.data.tags]
        if lacking:
            notes.append(f"{run.info.run_name}: tracked without {', '.join(lacking)}: left out.")
        else:
            usable.append(run)
    usable = _once(usable, notes)
    replaced = [run for run in usable if run.data.tags.get("superseded") == "true"]
    if replaced:
        keys = {run.data.tags["cell_key"] for run in replaced}
        count = sum(run.data.tags.get("cell_key") in keys for run in runs)
        names = ", ".join(sorted({run.info.run_name for run in replaced}))
        left_out = f"{_counted(len(replaced), 'cell')} with earlier settings ({names}), {_counted(count, 'run')}"
        notes.append(f"Left out: {left_out}.")
        runs = [run for run in runs if run.data.tags.get("cell_key") not in keys]
        usable = [run for run in usable if run not in replaced]
    if not usable:
        raise UserError(f"no cell of {name} can be read ({notes[0].removesuffix('.')}): launch its grid again")
    cell_frame = pd.DataFrame([_cell_record(run) for run in usable], columns=[*CELL_TAGS, *CELL_MARKS, "cell"])
    cell_frame = cell_frame.sort_values(["grid_order", "cell"], kind="stable", ignore_index=True)
    records = []
    for run in runs:
        lacking = [tag for tag in RUN_TAGS if tag not in run.data.tags]
        if lacking:
            notes.append(f"{run.info.run_name}: tracked without {', '.join(lacking)}: left out.")
        elif run.data.tags["cell_key"] not in set(cell_frame.cell_key):
            notes.append(f"{run.info.run_name}: its cell is not tracked: left out.")
        else:
            records.append(_run_record(run))
    run_frame = pd.DataFrame(records)
    for column in (*TEXTS, *DATES, *NUMBERS):
        if column not in run_frame:
            kind = "str" if column in TEXTS else "datetime64[ms, UTC]" if column in DATES else "float"
            run_frame[column] = pd.Series(None, index=run_frame.index, dtype=kind)
    run_frame["order"] = run_frame.cell_key.map({key: row for row, key in enumerate(cell_frame.cell_key)})
    run_frame["seed"] = run_frame.seed.astype(int)
    # Of several runs of one seed the finished one that was started first counts.
    run_frame["unfinished"] = run_frame.state != DONE
    run_frame = run_frame.sort_values(["order", "seed", "unfinished", "started", "run_id"], ignore_index=True)
    again = run_frame.duplicated(["cell_key", "seed"])
    notes += [f"{run}: tracked more than once: the first finished one counts." for run in run_frame.run[again]]
    run_frame = run_frame[~again].drop(columns=["order", "unfinished"]).reset_index(drop=True)
    return Experiment(name, cell_frame, run_frame, tuple(sorted(notes)))


def _once(cells: list[Run], notes: list[str]) -> list[Run]:
    """One run a cell: two launches at once, on two machines, may both have made one."""
    first: dict[str, Run] = {}
    for run in sorted(cells, key=lambda run: (run.info.start_time, run.info.run_id)):
        if first.setdefault(run.data.tags["cell_key"], run) is not run:
            notes.append(f"{run.info.run_name}: its cell is tracked twice: shown once, with all its seeds.")
    return list(first.values())


def _cell_record(run: Run) -> dict:
    tags = {tag: run.data.tags[tag] for tag in CELL_TAGS}
    seeds = [int(seed) for seed in tags["seeds_planned"].split()]
    cell = "/".join(tags[part] for part in NAME)
    for tag in CELL_MARKS:  # cells from before there were such marks have none
        tags[tag] = run.data.tags.get(tag, "")
    return tags | {"seeds_planned": seeds, "grid_order": int(tags["grid_order"]), "cell": cell}


def _run_record(run: Run) -> dict:
    tags = run.data.tags
    metrics = {name: _value(value) for name, value in run.data.metrics.items()}
    return {
        "run": run.info.run_name,
        "run_id": run.info.run_id,
        "artifact_uri": run.info.artifact_uri,
        "started": pd.to_datetime(run.info.start_time, unit="ms", utc=True),
        "ended": pd.to_datetime(run.info.end_time, unit="ms", utc=True),
        **{tag: tags[tag] for tag in RUN_TAGS},
        **{tag: tags.get(tag, "") for tag in STATE_TAGS},
        "state": tags.get("state", "running"),  # written after the first epochs
        "seed": int(tags["seed"]),
        **{f"params.{name}": value for name, value in run.data.params.items()},
        **metrics,
    }


def _value(tracked: float) -> float:
    """A metric's value as it was before MLflow's database kept it."""
    return float(np.copysign(np.inf, tracked)) if abs(tracked) >= INFINITY else tracked


def _is_local(uri: str) -> bool:
    return urlparse(uri).scheme in ("", "file")


def _local_path(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
