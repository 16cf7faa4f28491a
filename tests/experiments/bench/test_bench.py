"""The command bench: every part writes its CSV columns; invalid input is one line; measured files are merged."""

import csv
import itertools
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from place import epoch_options
from rich.console import Console

from cskd.utils.integrity import write_json
from experiments.bench import epoch_profile, memory, results, timed_steps, whole_run
from experiments.bench.images import noise_images
from experiments.bench.results import Cell
from experiments.bench.timed_steps import Stopwatch
from experiments.bench.timing import TimedTrainer
from experiments.config.recipe import load_settings

QUICK = ("--turns", "1", "--steps", "1", "--datasets", "digits")


def trainer_of(method: str, *overrides: str, dataset="digits", architecture="resnet10", steps=1) -> TimedTrainer:
    profile, settings = load_settings(dataset, None, overrides)
    cell = Cell(dataset, profile, settings, architecture)
    return TimedTrainer(cell, method, noise_images(cell, 1 + steps), uncounted=0, counted=steps)


@pytest.fixture
def rows_of(tmp_path):
    def read(name: str) -> list[dict[str, str]]:
        with (tmp_path / "results" / "bench" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


def test_steps_and_pipelines_have_ratios_and_shares_and_are_kept(call, rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.commands.bench.MEASURED", tmp_path / "measured")
    arguments = ("--parts", "pipelines", "steps", "--methods", "kd", "--keep", *QUICK)
    status, output, errors = call("experiments bench", *arguments)
    assert (status, errors) == (0, "")
    steps, pipelines = rows_of("steps"), rows_of("pipelines")
    assert [row["method"] for row in steps + pipelines] == ["cross-entropy", "kd", "cross-entropy", "cs-kd"]
    assert float(steps[0]["ratio"]) == 1
    for row in steps:
        share = int(row["flops_per_step"]) / float(row["seconds_per_step"]) / float(row["matmul_flops_per_second"])
        assert float(row["matmul_share"]) == pytest.approx(share, abs=2e-4)
        assert 0 < float(row["input_share"]) < 1
    for row in steps + pipelines:
        assert 0 < float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert row["method"] in output
    measured = (tmp_path / "measured" / "bench-steps.csv").read_text()
    assert measured == (tmp_path / "results" / "bench" / "steps.csv").read_text()


@pytest.mark.parametrize(("method", "passes"), [("cross-entropy", 3), ("cs-kd", 4)])
def test_flops_of_a_step_are_those_of_the_network(method, passes):
    """The CIFAR ResNet-18 has 0.557 billion multiply-adds per image; cs-kd adds a pass without backward."""
    trainer = trainer_of(method, "batch_size=4", dataset="cifar100", architecture="resnet18")
    assert trainer.count_flops() == pytest.approx(passes * 2 * 0.557e9 * 4, rel=0.01)


def test_stopwatch_measures_the_counted_steps_only(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timed_steps, "now", lambda device: clock[0])

    def slow_epoch(number: int):
        for index in range(100):
            clock[0] += 1 if index else 10  # seconds to make a batch
            yield index

    stopwatch = Stopwatch(SimpleNamespace(epoch=slow_epoch), uncounted=2, counted=3, device=torch.device("cpu"))
    for _ in stopwatch.epoch(0):
        clock[0] += 100  # seconds of a step
    assert (clock[0], stopwatch.seconds) == (514, 101)


def test_memory_is_the_peak_of_a_new_process(call, rows_of, monkeypatch):
    monkeypatch.setattr(memory, "BASELINE", "cs-kd")
    reserved = torch.ones(100_000_000)  # 400 MB of this process, which the new one must not include
    status, output, errors = call("experiments bench", "--parts", "memory", "--methods", "cross-entropy", *QUICK)
    assert (status, errors) == (0, "")
    (row,) = rows_of("memory")
    peak = 1e6 * float(row["peak_memory_megabytes"])
    assert 100e6 < peak < memory.peak_bytes(torch.device("cpu")) - 2 * len(reserved)
    assert (row["method"], "peak, MB" in output) == ("cs-kd", True)


def test_run_has_the_times_of_its_folder_and_the_share_of_tracking(call, rows_of, demo_grid, monkeypatch):
    (trained,) = (folder for folder in demo_grid.folders() if folder.spec().method == "cs-kd")

    def train(command: list[str], env: dict[str, str], **options) -> subprocess.CompletedProcess:
        """Check the command, and copy a run that was trained before."""
        assert call(f"experiments {command[3]}", *command[4:], "--dry-run")[0] == 0
        shutil.copytree(trained.path, Path(env["RUNS_DIR"]) / trained.path.name)
        write_json(Path(command[-1]), {"cpu_seconds": 2.5, "problem": None})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(whole_run, "COMPARED", ("cs-kd",))
    monkeypatch.setattr(whole_run, "_processor_seconds", itertools.count(0, 10).__next__)
    monkeypatch.setattr(whole_run, "subprocess", SimpleNamespace(run=train))
    status, _, errors = call("experiments bench", "--parts", "run", *epoch_options(2))
    assert (status, errors) == (0, "")
    (row,), (start,) = rows_of("run"), trained.starts()
    assert (row["dataset"], row["method"], row["epochs"], row["tracking_share"]) == ("digits", "cs-kd", "2", "0.2500")
    assert float(row["set_up_seconds"]) == pytest.approx(start["set_up_seconds"], abs=0.01)
    first_test = trained.epochs()[0]["metrics"]["time/test_seconds"]
    assert float(row["evaluation_seconds_per_1000_images"]) == pytest.approx(first_test / 1.597, abs=1e-4)


def test_profile_writes_phases_and_operators(call, rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr(epoch_profile, "COMPARED", ("cs-kd",))
    status, output, errors = call("experiments bench", "--parts", "profile", "--set", "width=4")
    assert (status, errors, "cs-kd, partner pass" in output) == (0, "", True)
    shares = {row["phase"]: float(row["share"]) for row in rows_of("profile")}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert min(shares[phase] for phase in ("input", "forward", "partner pass", "backward", "optimiser")) > 0
    operators = {row["operator"]: float(row["share"]) for row in rows_of("operators")}
    assert operators.keys() >= {"aten::convolution_backward", "aten::native_batch_norm"}
    assert 0.5 < sum(operators.values()) <= 1.001
    assert "cs-kd, 4 steps" in (tmp_path / "results" / "bench" / "profile-digits-resnet10-cs-kd.txt").read_text()


def test_measured_file_replaces_rows_of_the_same_step_and_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    path = tmp_path / "measured" / "bench-steps.csv"

    def store(*measured: tuple[str, dict[str, str]]) -> list[str]:
        rows = [dict.fromkeys(results.KEY, "same") | {"ratio": ratio} | changes for ratio, changes in measured]
        results.write_rows("steps", rows, Console(quiet=True))
        results.store_measured("steps", path.parent, Console(quiet=True))
        with path.open(newline="") as file:
            return [row["ratio"] for row in csv.DictReader(file)]

    assert store(("1.3", {}), ("1.0", {"method": "other"})) == ["1.3", "1.0"]
    assert store(("1.2", {"machine": "another"})) == ["1.3", "1.0", "1.2"]
    assert store(("1.4", {"new column": "9"})) == ["1.0", "1.2", "1.4"]
