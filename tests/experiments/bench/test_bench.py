"""The command bench: every part writes its CSV columns; invalid input is one line; measured files are merged."""

import csv
import itertools
import os
import signal
import subprocess

import pytest
import torch
from rich.console import Console

from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.utils.errors import UserError
from experiments.bench import epoch_profile, memory, results, timing, whole_run
from experiments.bench.epoch_profile import PHASES, epoch_by_phase
from experiments.bench.images import noise_images
from experiments.bench.results import Cell
from experiments.bench.timing import Stopwatch, TimedTrainer
from experiments.config.recipe import load_settings

QUICK = ("--turns", "1", "--steps", "1", "--datasets", "digits")


def cell_of(dataset: str, architecture: str, *overrides: str) -> Cell:
    profile, settings = load_settings(dataset, None, overrides)
    return Cell(dataset, profile, settings, architecture)


def trainer_of(method: str, *overrides: str, dataset="cifar100", architecture="resnet18", steps=1) -> TimedTrainer:
    cell = cell_of(dataset, architecture, *overrides)
    return TimedTrainer(cell, method, noise_images(cell, 1 + steps), uncounted=0, counted=steps)


@pytest.fixture
def rows_of(tmp_path):
    def read(name: str) -> list[dict[str, str]]:
        with (tmp_path / "results" / "bench" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.mark.parametrize(("name", "size"), [("cifar100", (32, 32)), ("tinyimagenet", (64, 64)), ("cub200", (375, 500))])
def test_noise_images_have_the_datasets_size_and_fill_the_batches(name, size):
    cell = cell_of(name, "resnet18")
    images = noise_images(cell, batches=2)
    assert len(images.train) == 2 * cell.settings.batch_size
    assert images.train.image(3).shape == (*size, 3)


def test_steps_and_pipelines_write_consistent_columns(call, rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.commands.bench.MEASURED", tmp_path / "measured")
    arguments = ("--parts", "pipelines", "steps", "--methods", "cs-kd", "--keep", *QUICK)
    status, output, errors = call("experiments bench", *arguments)
    assert (status, errors) == (0, "")
    rows = rows_of("steps")
    assert [row["method"] for row in rows] == ["cross-entropy", "cs-kd"]
    assert float(rows[0]["ratio"]) == 1
    for row in rows:
        seconds = float(row["seconds_per_step"])
        assert float(row["images_per_second"]) == pytest.approx(50 / seconds, rel=1e-3)
        share = int(row["flops_per_step"]) / seconds / float(row["matmul_flops_per_second"])
        assert float(row["matmul_share"]) == pytest.approx(share, abs=2e-4)
        assert 0 < float(row["input_share"]) < 1
    for row in [*rows, *rows_of("pipelines")]:
        assert 0 < float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert (row["architecture"], row["turns"], row["compiled"], row["device"]) == ("resnet10", "1", "False", "cpu")
        assert row["method"] in output
    assert all(float(row["seconds_per_step_torchvision"]) > 0 for row in rows_of("pipelines"))
    measured = (tmp_path / "measured" / "bench-steps.csv").read_text()
    assert measured == (tmp_path / "results" / "bench" / "steps.csv").read_text()


@pytest.mark.parametrize("method", [*METHODS, *PAPER_COMPOSITES])
def test_every_method_can_be_timed(method):
    trainer = trainer_of(method, "width=4", dataset="digits", architecture="resnet10")
    assert trainer.turn(0) > 0


def test_flops_of_a_step_are_those_of_the_network():
    """The CIFAR ResNet-18 has 0.557 billion multiply-adds per image; cs-kd adds a pass without backward."""
    forward = 2 * 0.557e9 * 4
    assert trainer_of("cross-entropy", "batch_size=4").count_flops() == pytest.approx(3 * forward, rel=0.01)
    assert trainer_of("cs-kd", "batch_size=4").count_flops() == pytest.approx(4 * forward, rel=0.01)


def test_compiled_trainers_are_counted_and_not_limited_in_number(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, options, **how: compile_(step, backend="eager", **how))
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 1)
    overrides = ("batch_size=4", "width=4")
    for method in ("cross-entropy", "cs-kd"):
        compiled = trainer_of(method, "compile=true", *overrides)
        assert compiled.measurement.compiled
        assert compiled.turn(0) > 0
    assert compiled.count_flops() == trainer_of("cs-kd", *overrides).count_flops() > 0
    torch.compiler.reset()


class SlowLoader:
    """Each batch takes 1 s of a fake clock, the first one 10 s."""

    def __init__(self, clock: list[float], batches):
        self.clock, self.batches = clock, batches

    def __len__(self):
        return len(self.batches)

    def epoch(self, number: int):
        for index, batch in enumerate(self.batches):
            self.clock[0] += 1 if index else 10
            yield batch


def test_stopwatch_measures_the_counted_steps_only(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing, "now", lambda device: clock[0])
    stopwatch = Stopwatch(SlowLoader(clock, range(100)), uncounted=2, counted=3, device=torch.device("cpu"))
    batches = []
    for batch in stopwatch.epoch(0):
        batches.append(batch)
        clock[0] += 100
    assert batches == [0, 1, 2, 3, 4]
    assert stopwatch.seconds == 101


def test_memory_is_the_peak_of_a_new_process(call, rows_of):
    reserved = torch.ones(100_000_000)  # 400 MB of this process, which the new one must not include
    status, output, errors = call("experiments bench", "--parts", "memory", "--methods", "cs-kd", *QUICK)
    assert (status, errors) == (0, "")
    rows = rows_of("memory")
    assert [row["method"] for row in rows] == ["cross-entropy", "cs-kd"]
    for row in rows:
        peak = 1e6 * float(row["peak_memory_megabytes"])
        assert 100e6 < peak < memory.peak_bytes(torch.device("cpu")) - 2 * len(reserved)
    assert "peak, MB" in output


def kill_process(cell, method):
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_memory_process_raises_one_line_error(monkeypatch):
    monkeypatch.setattr(memory, "train_steps", kill_process)
    with pytest.raises(UserError, match="the memory of cs-kd was killed, perhaps for lack of memory: give a smaller"):
        memory.measure_in_new_process((), "cs-kd")


def test_run_measures_start_evaluation_and_tracking(call, rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_run, "COMPARED", ("cs-kd",))
    short = ("--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]")
    status, _, errors = call("experiments bench", "--parts", "run", *short)
    assert (status, errors) == (0, "")
    (row,) = rows_of("run")
    assert (row["dataset"], row["profile"], row["method"], row["epochs"]) == ("digits", "demo", "cs-kd", "2")
    start, set_up = float(row["start_to_first_step_seconds"]), float(row["set_up_seconds"])
    assert 0 < set_up < start < start + float(row["first_step_seconds"]) < float(row["run_seconds"])
    assert float(row["evaluation_seconds_per_1000_images"]) > 0
    share = float(row["tracking_processor_seconds"]) / float(row["processor_seconds"])
    assert 0 < share < 1
    assert float(row["tracking_share"]) == pytest.approx(share, abs=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "results"]


def test_failed_run_is_one_line(call, monkeypatch):
    failed = subprocess.CompletedProcess([], 2, "", "error: no room\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    status, _, errors = call("experiments bench", "--parts", "run")
    assert (status, errors) == (2, "error: the measured run failed: error: no room\n")


@pytest.mark.parametrize(("method", "forward", "partner"), [("cross-entropy", 1, 0), ("cs-kd", 2, 1)])
def test_phases_of_an_epoch_are_counted(method, forward, partner, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(epoch_profile, "now", lambda device: next(clock))  # every reading is a second later
    count = 3
    timed = trainer_of(method, "width=4", dataset="digits", architecture="resnet10", steps=count)
    for _ in range(2):  # the hooks of the first epoch are removed
        seconds = epoch_by_phase(timed.trainer, 0, compiled=False)
        assert list(seconds) == list(PHASES)
        assert seconds["input"] == count + 1  # the last request finds no batch
        assert seconds["forward"] == forward * count
        assert seconds["partner pass"] == partner * count
        assert seconds["backward"] == seconds["optimiser"] == count
        assert seconds["evaluation"] == 1
    assert timed.trainer.loader is timed.stopwatch


def test_profile_writes_phases_and_operators(call, rows_of, tmp_path):
    status, output, errors = call("experiments bench", "--parts", "profile", "--set", "width=4")
    assert (status, errors) == (0, "")
    for method in ("cross-entropy", "cs-kd"):
        shares = {row["phase"]: float(row["share"]) for row in rows_of("profile") if row["method"] == method}
        assert list(shares) == list(PHASES)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        operators = [row for row in rows_of("operators") if row["method"] == method]
        shares = [float(row["share"]) for row in operators]
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < sum(shares) <= 1.001
        assert {"aten::convolution_backward", "aten::native_batch_norm"} <= {row["operator"] for row in operators}
        listing = (tmp_path / "results" / "bench" / f"profile-digits-resnet10-{method}.txt").read_text()
        assert f"{method}, 4 steps" in listing
    assert "cs-kd, partner pass" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--datasets", "digit"], "unknown dataset 'digit'"),
        (["--methods", "adacos+mixup"], "adacos cannot be combined"),
        (["--architectures", "vgg"], "unknown architecture 'vgg'"),
        (["--turns", "0"], "argument --turns: 0 is not a number from 1 to 1,000,000"),
        (["--parts", "step"], "unknown part 'step'"),
        (["--parts", "reference"], "give REFERENCE=<folder>"),
        (["--datasets", "digits", "--architectures", "resnet18"], "profile demo trains resnet10, not resnet18"),
        (["--datasets", "cifar100", "--parts", "steps", "profile"], "cifar100 is not prepared"),
    ],
)
def test_invalid_input_is_one_line_before_any_measurement(call, arguments, message):
    status, output, errors = call("experiments bench", *arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def row_of(ratio: str, **changes: str) -> dict[str, str]:
    return dict.fromkeys(results.KEY, "same") | {"ratio": ratio} | changes


def test_measured_file_replaces_rows_of_the_same_step_and_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    path = tmp_path / "measured" / "bench-steps.csv"

    def store(*rows: dict[str, str]) -> list[dict[str, str]]:
        console = Console(quiet=True)
        results.write_rows("steps", list(rows), console)
        results.store_measured("steps", path.parent, console)
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    first, other, elsewhere = row_of("1.3"), row_of("1.0", method="other"), row_of("1.2", machine="two")
    assert store(first, other) == [first, other]
    assert store(elsewhere) == [first, other, elsewhere]
    assert store(row_of("1.4")) == [other, elsewhere, row_of("1.4")]
    new_column = row_of("1.5", device="H200", peak="9")
    assert store(new_column) == [
        {**row, "peak": row.get("peak", "")} for row in (other, elsewhere, row_of("1.4"), new_column)
    ]
    path.write_text("fault,tried\nfire,3\n")
    with pytest.raises(UserError, match=r"bench-steps\.csv is not a table of steps \('dataset'\): restore it"):
        store(first)
    assert path.read_text() == "fault,tried\nfire,3\n"
