"""Many runs at once: made-up run folders grow while the uploader, with a real server, and ``make status`` read them.

    PYTHONPATH=.:tests python -m clusters.crowd 1000 sqlite 60 20

prints the figures of docs/clusters.md. The second argument is the server's store, such as a PostgreSQL address; the
third is the seconds of an epoch, and the fourth is the number of epochs.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from faults.servers import Server, with_descendants
from place import Place
from requests.adapters import HTTPAdapter
from run_folders import START, make_spec

from cskd.evaluate.predictions import Predictions, save_predictions
from experiments.config.spec import RunSpec
from experiments.runs.folder import INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import Cell, Plan
from experiments.tracking.grids import GridTracker

NAMES = [f"test/metric{number}" for number in range(24)]  # about as many as a run has
SEEDS = 10  # of a cell
METRICS = ["train/loss", "test/top1_error", "test/ece", "time/train_seconds", "time/test_seconds", *NAMES]


@dataclass
class Figures:
    """What was measured; seconds, unless the name says another unit."""

    runs: int
    passes: list[tuple[float, int]] = field(default_factory=list)  # seconds, requests
    latencies: list[float] = field(default_factory=list)
    status: list[float] = field(default_factory=list)
    uploader_megabytes: float = 0.0
    server_megabytes: float = 0.0
    lost: int = 0

    def lines(self) -> list[str]:
        (first, first_requests), *others = self.passes
        seconds, requests = (sum(column) for column in zip(*others, strict=True))
        latencies = sorted(self.latencies)
        return [
            f"{self.runs} runs, {self.lost} of them lost",
            f"first pass, which creates the runs: {first:.0f} s, {first_requests} requests",
            f"later passes: {len(others)}, the longest {max(other[0] for other in others):.0f} s, "
            f"{requests / seconds:.0f} requests/s while uploading",
            f"latency of a request: median {1000 * statistics.median(latencies):.0f} ms, "
            f"95 % {1000 * latencies[int(0.95 * len(latencies))]:.0f} ms, longest {latencies[-1]:.1f} s",
            f"make status: {', '.join(f'{one:.1f}' for one in self.status)} s",
            f"memory: uploader {self.uploader_megabytes:.0f} MB, server {self.server_megabytes:.0f} MB",
        ]


def make_plan(specs: list[RunSpec]) -> Plan:
    """Return a plan whose cells have SEEDS runs each."""
    cells = []
    for first in range(0, len(specs), SEEDS):
        runs = {spec.seed - first: spec.run_key for spec in specs[first : first + SEEDS]}
        name = f"digits/network{first // SEEDS}/cs-kd"
        cell = {"name": name, "key": f"{first:016x}", "order": len(cells), "comparable": False}
        cells.append(Cell(**cell, comparable_reason="made up", runs=runs))
    return Plan(experiment="demo", grid="demo", title="Many runs", profile="demo", cells=cells)


def make_record(seed: int, epoch: int) -> dict:
    values = {name: (seed + epoch) % 97 + number / 10 for number, name in enumerate(METRICS)}
    return {"epoch": epoch, "timestamp": time.time(), "metrics": values}


def finish(run: RunFolder) -> None:
    """Give a run its results, and mark it as done."""
    logits = np.random.default_rng(0).normal(size=(100, 10)).astype("f4")
    save_predictions(run.predictions, Predictions(logits, np.ones((100, 4), "f4"), np.arange(100) % 10))
    torch.save({}, run.weights)
    run.finish()


def grow(folder: Path, count: int, epochs: int, seconds: float, done: int) -> None:
    """Write the epochs of all runs, one after the other, in ``seconds`` an epoch. The first ``done`` runs get done."""
    specs = [make_spec(seed, epochs=epochs) for seed in range(count)]
    records = [[] for _ in specs]
    for epoch in range(epochs):
        started = time.time()
        for seed, spec in enumerate(specs):
            run = RunFolder.of(spec, folder)
            records[seed].append(make_record(seed, epoch))
            run.write_epochs(records[seed])
            if epoch + 1 < epochs:
                run.write_state(RUNNING, reason="training", epoch=epoch + 1, epochs=epochs, fraction=0.0, metrics={})
            elif seed >= done:
                run.end(INTERRUPTED, "interrupted: Ctrl-C")
            else:
                finish(run)
            time.sleep(max(0.0, started + seconds * (seed + 1) / count - time.time()))


@contextmanager
def timed_requests(figures: Figures):
    send = HTTPAdapter.send

    def timed(*arguments, **more):
        started = time.perf_counter()
        try:
            return send(*arguments, **more)
        finally:
            figures.latencies.append(time.perf_counter() - started)

    HTTPAdapter.send = timed
    try:
        yield
    finally:
        HTTPAdapter.send = send


def measure(place: Place, server: Server, count: int, *, epochs: int, seconds: float, done: int) -> Figures:
    """Let runs grow, and upload them as a launch does until they have ended."""
    figures = Figures(count)
    specs = [make_spec(seed, epochs=epochs) for seed in range(count)]
    for spec in specs:
        folder = RunFolder.of(spec, place.runs)
        folder.create(spec)
        folder.write_environment(f"training-{spec.seed}", [START])
        folder.begin(0, epochs)
    make_plan(specs).save(place.runs)
    place.environment["MLFLOW_TRACKING_URI"] = server.uri
    tracker = GridTracker(server.uri, "demo", place.runs)
    for spec in specs:
        tracker.watch(spec.run_key)
    fork = multiprocessing.get_context("fork")
    grower = fork.Process(target=grow, args=(place.runs, count, epochs, seconds, done))
    grower.start()
    with timed_requests(figures):
        while grower.is_alive():
            one_pass(figures, tracker, everything=False)
            started = time.perf_counter()
            status, output, errors = place.run("experiments status", "demo")
            assert (status, errors) == (0, ""), output
            figures.status.append(time.perf_counter() - started)
        one_pass(figures, tracker, everything=True)
    assert grower.exitcode == 0
    figures.uploader_megabytes = psutil.Process().memory_info().rss / 1e6
    figures.server_megabytes = sum(member.memory_info().rss for member in with_descendants(server.process)) / 1e6
    figures.lost = count - len(complete(tracker, epochs, done))
    return figures


def one_pass(figures: Figures, tracker: GridTracker, everything: bool) -> None:
    started, before = time.perf_counter(), len(figures.latencies)
    tracker.update(everything)
    figures.passes.append((time.perf_counter() - started, len(figures.latencies) - before))
    print(f"{figures.passes[-1][0]:.0f} s, {figures.passes[-1][1]} requests", file=sys.stderr, flush=True)


def complete(tracker: GridTracker, epochs: int, done: int) -> list[str]:
    """Return the runs that MLflow has with their state and each epoch once."""
    found = []
    for run in tracker.experiment.runs(by=("run_key",), kind="run").values():
        history = tracker.client.get_metric_history(run.info.run_id, METRICS[0])
        expected = "FINISHED" if int(run.data.tags["seed"]) < done else "KILLED"
        if run.info.status == expected and [point.step for point in history] == list(range(epochs)):
            found.append(run.info.run_id)
    return found


def main() -> None:
    count, address, seconds, epochs = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        options = [] if address == "sqlite" else ["--backend-store-uri", address]
        with Server(place.folder, *options) as server:
            figures = measure(place, server, count, epochs=epochs, seconds=seconds, done=count // 100)
    print(*figures.lines(), sep="\n")


if __name__ == "__main__":
    main()
