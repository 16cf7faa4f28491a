"""Made-up runs for tests: experiments, pools and evaluations in memory, and MLflow stores with predictions.

Cells and runs have the tags, parameters and metrics that the uploader writes (docs/tracking.md). In-memory frames are
built from the same MLflow entities by ``analysis.load.frames``, so that both forms agree.
"""

import functools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from analysis.load.frames import Experiment, read_experiment
from analysis.load.pools import Pool, pools
from cskd.evaluate.evaluation import Evaluation, Evaluations
from cskd.evaluate.metrics import EPOCH, LAST, METRICS, STORED, TRACKED
from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.evaluate.scores import reliability_bins

START = 1_790_000_000_000  # milliseconds: 2026-09-21
COMMIT, OTHER_COMMIT = "1111111111aaaaaaaaaa", "2222222222bbbbbbbbbb"
MACHINE = "Example CPU @ 2.00GHz, 2 cores"
HOSTILE = "<img src=x onerror=document.title='owned'>"
PAPER_SETTINGS = {"width": 64, "inputs.image_size": 32, "schedule.epochs": 200, "subset": "None"}
MINI_SETTINGS = {
    "width": 16,
    "inputs.image_size": 32,
    "schedule.epochs": 60,
    "subset.classes": 20,
    "subset.images_per_class": 100,
}
RUN_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@dataclass
class Tracked:
    """One cell or run, before it is an MLflow run. metrics: (name, value, epoch)."""

    name: str
    run_id: str
    tags: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    started: int = START
    seconds: int = 90
    predictions: bool = True  # whether a finished run has predictions in a store

    @property
    def ended(self) -> int | None:
        return self.started + 1000 * self.seconds if self.tags.get("state") in RUN_STATUS else None

    def entity(self) -> Run:
        """Return an MLflow run that is in no store."""
        info = RunInfo(self.run_id, "1", "", "RUNNING", self.started, self.ended, "active", "", self.name)
        metrics = [Metric(name, value, self.started, epoch) for name, value, epoch in self.metrics]
        params = [Param(name, value) for name, value in self.settings.items()]
        return Run(info, RunData(metrics, params, [RunTag(*tag) for tag in self.tags.items()]))

    def log(self, client: MlflowClient, experiment_id: str, parent: str | None = None) -> str:
        """Create the run in a store and return its id."""
        tags = self.tags | ({"mlflow.parentRunId": parent} if parent else {})
        run = client.create_run(experiment_id, start_time=self.started, run_name=self.name, tags=tags)
        metrics = [Metric(name, value, self.started, epoch) for name, value, epoch in self.metrics]
        params = [Param(name, value) for name, value in self.settings.items()]
        client.log_batch(run.info.run_id, metrics=metrics, params=params)
        if self.ended:
            client.set_terminated(run.info.run_id, RUN_STATUS[self.tags["state"]], self.ended)
        return run.info.run_id


class Grid:
    """One experiment: cells and runs that were launched together."""

    def __init__(
        self, name: str = "table1", profile: str = "paper", settings: Mapping | None = None, *,
        comparable_reason: str | None = None, tuned: bool = False, overrides: tuple[str, ...] = (),
    ):  # fmt: skip
        self.name, self.profile, self.tuned, self.overrides = name, profile, tuned, overrides
        self.settings = dict(PAPER_SETTINGS if settings is None else settings)
        default = "" if profile == "paper" else f"profile {profile}"
        self.comparable_reason = default if comparable_reason is None else comparable_reason
        self.cells: list[Tracked] = []
        self.runs: list[Tracked] = []

    def cell(
        self, dataset: str, method: str, *, architecture: str = "resnet18", seeds: str = "0 1 2", version: str = "",
        comparable_reason: str | None = None, **tags: str,
    ) -> Tracked:  # fmt: skip
        """Add a cell. version: appended to its key, for a cell of the same name with other settings."""
        name = f"{dataset}/{architecture}/{method}"
        reason = self.comparable_reason if comparable_reason is None else comparable_reason
        tags = {
            "kind": "cell",
            "cell_key": f"{name}{version}",
            "grid": self.name.split("-")[0],
            "profile": self.profile,
            "dataset": dataset,
            "architecture": architecture,
            "method": method,
            "seeds_planned": seeds,
            "grid_order": str(len(self.cells)),
            "comparable": "false" if reason else "true",
            "comparable_reason": reason,
            "tuned": "",
            "hyperparameter_source": "",
            "superseded": "false",
        } | tags
        cell = Tracked(name, f"cell:{tags['cell_key']}", tags)
        self.cells.append(cell)
        return cell

    def run(
        self, cell: Tracked, seed: int, metrics: Mapping[str, float] | None = None, *, state: str = "done",
        best: Mapping[str, float] | None = None, settings: Mapping | None = None, **tags: str,
    ) -> Tracked:  # fmt: skip
        """Add a run. metrics: test metrics of the last epoch, by name; best: of the best epoch."""
        copied = ("cell_key", "profile", "dataset", "architecture", "method", "comparable", "comparable_reason")
        key = f"{cell.tags['cell_key']}:{seed}"
        tags = {
            **{name: cell.tags[name] for name in copied},
            **{"kind": "run", "run_key": key, "training_id": f"training of {key}", "seed": str(seed)},
            **{"state": state, "reason": "", "git_commit": COMMIT, "git_dirty": "false", "machine": MACHINE},
            **{"device": "cpu", "threads": "1", "precision": "fp32", "compiled": "false"},
        } | tags
        identity = {"method": tags["method"], "seed": seed}
        texts = {name: str(value) for name, value in (self.settings | identity | dict(settings or {})).items()}
        values = [(f"test/{name}", value, 1) for name, value in (metrics or {}).items()]
        if best is not None:
            tags["best_epoch"] = json.dumps({"epoch": 1} | best)
            values.append(("minutes", 1.5 + seed, 0))
        run = Tracked(f"{cell.name}/seed{seed}", key, tags, texts, values, START + 3_600_000 * seed)
        self.runs.append(run)
        return run

    def trained(
        self, cell: Tracked, seed: int, error: float, ece: float, *, metrics: Mapping | None = None,
        without: tuple[str, ...] = (), predictions: bool = True, **tags: str,
    ) -> Tracked:  # fmt: skip
        """Add a finished run with every metric of two epochs, derived from its last error and ECE.

        metrics: values to replace, by full name ("test/ece"). without: metrics that were not tracked.
        """
        last = {metric.name: error / 10 for metric in TRACKED if metric.when == EPOCH}
        last |= {"top1_error": error, "top5_error": error / 3, "nll": error / 20, "brier": error / 60, "ece": ece}
        best = {name: value - 0.125 for name, value in last.items() if f"best/{name}" not in without}
        at_the_end = {metric.name: 100 - error for metric in TRACKED if metric.when == LAST}
        run = self.run(cell, seed, last | at_the_end, best=best, **tags)
        first = [(f"test/{name}", 2 * value, 0) for name, value in last.items()]
        run.predictions = predictions
        replaced = metrics or {}
        run.metrics = [
            (name, replaced.get(name, value), epoch)
            for name, value, epoch in first + run.metrics
            if name not in without
        ]
        return run

    def train(self, cell: Tracked, errors: list[float], **tags: str) -> None:
        """Add a finished run for each error, with seeds from 0; its ECE is a third of it."""
        for seed, error in enumerate(errors):
            self.trained(cell, seed, error, error / 3, **tags)

    def experiment(self) -> Experiment:
        """Return the frames, without a store."""
        cells, runs = ([tracked.entity() for tracked in kind] for kind in (self.cells, self.runs))
        return read_experiment(self.name, cells, runs, self.tuned, self.overrides)

    def log(self, uri: str, folder: Path, *, label: str | None = None, predictions: bool = True) -> str:
        """Write the experiment to a store, with predictions of finished runs, and return its id.

        label: the experiment's name in MLflow, if it is not the plan's.
        """
        client = MlflowClient(uri)
        location = (folder / "mlartifacts" / self.name).as_uri()
        tags = {
            "experiment": self.name,
            "grid": self.name.split("-")[0],
            "profile": self.profile,
            "title": self.name,
            "tuned": "true" if self.tuned else "false",
            "overrides": json.dumps(self.overrides),
        }
        number = client.create_experiment(label or self.name, artifact_location=location, tags=tags)
        parents = {cell.tags["cell_key"]: cell.log(client, number) for cell in self.cells}
        for run in self.runs:
            run_id = run.log(client, number, parents[run.tags["cell_key"]])
            if predictions and run.tags["state"] == "done" and run.predictions:
                scale = 4 if run.tags["method"] == "cross-entropy" else 1.5
                path = folder / "mlartifacts" / self.name / run_id / "artifacts" / "predictions.npz"
                path.parent.mkdir(parents=True)
                save_predictions(path, predictions_of(int(run.tags["seed"]), scale))
        return number


def predictions_of(seed: int, scale: float, images: int = 200, classes: int = 10) -> Predictions:
    """Return noisy predictions; a larger ``scale`` is more confident. The legacy generator never changes its values."""
    random = np.random.RandomState(seed)
    labels = random.randint(classes, size=images)
    logits = random.standard_normal((images, classes))
    logits[np.arange(images), labels] += 1.5
    features = random.standard_normal((images, 4))
    return Predictions((scale * logits).astype(np.float32), features.astype(np.float32), labels)


@functools.cache
def _empty_database() -> bytes:
    """Return an MLflow database without experiments. Creating one takes seconds, so each process does it once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").search_experiments()
        return path.read_bytes()


def empty_store(folder: Path) -> str:
    """Create an empty MLflow store in the folder and return its URI."""
    path = folder / "mlflow.db"
    path.write_bytes(_empty_database())
    return f"sqlite:///{path}"


def make_experiment(
    cells: Mapping[str, Mapping[int, object]], name: str = "table1", profile: str = "paper",
    settings: Mapping[str, Mapping] | None = None, **grid,
) -> Experiment:  # fmt: skip
    """Return an experiment with planned seeds 0, 1 and 2.

    cells: ``{"cifar100/resnet18/cs-kd": {seed: value}}``. A value is the top-1 error, a dict of metrics by name, or the
        state of a run without results.
    settings: changed settings by cell. grid: further arguments of ``Grid``.
    """
    made = Grid(name, profile, {"schedule.epochs": 200, "width": 64}, **grid)
    for cell_name, seeds in cells.items():
        dataset, architecture, method = cell_name.split("/")
        cell = made.cell(dataset, method, architecture=architecture)
        for seed, value in seeds.items():
            changed = (settings or {}).get(cell_name)
            if isinstance(value, str):
                made.run(cell, seed, state=value, settings=changed)
            else:
                metrics = value if isinstance(value, Mapping) else {"top1_error": value}
                made.run(cell, seed, metrics, settings=changed).started = START
    return made.experiment()


def make_pool(cells: Mapping[str, Mapping[int, object]], profile: str = "paper", **arguments) -> Pool:
    """Return the pool of one experiment; see ``make_experiment``."""
    name = "table1" if profile == "paper" else profile if profile == "demo" else f"table1-{profile}"
    return pools([make_experiment(cells, **({"name": name, "profile": profile} | arguments))])[0]


def make_evaluations(pool: Pool, spread: float, metric: str = "top1_error", interaction: float = 0.0) -> Evaluations:
    """Return an evaluation of every finished run, with replicates around the run's value.

    spread: std of the replicates, common to the runs of a method. interaction: std of each run alone.
    The metrics of stored predictions are a hundredth of the run's top-1 error.
    """
    evaluations = {}
    bins = reliability_bins(np.eye(2), [0, 1])
    for run in pool.done.to_dict("records"):
        shifts = [
            scale * np.random.default_rng(list(name.encode())).standard_normal(200)
            for scale, name in ((spread, run["method"]), (interaction, run["run_key"]))
        ]
        replicates = {metric: run[f"test/{metric}"] + sum(shifts)}
        stored = {metric.name: run["test/top1_error"] / 100 for metric in METRICS if metric.when == STORED}
        empty = np.empty(0)
        evaluations[run["run_key"]] = Evaluation({}, {}, replicates, bins, empty, empty, stored)
    return evaluations
