"""What a run takes beside its steps: memory, its start, evaluation and tracking; and where an epoch's time goes."""

import csv
import itertools
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cskd.utils.cli import data_dir
from cskd.utils.errors import UserError
from experiments.bench import files, memory, phases
from experiments.bench import whole_run as run
from experiments.bench.images import made_up, prepared
from experiments.bench.ours import TimedTrainer
from experiments.bench.phases import PHASES, epoch_by_phase
from experiments.config.recipe import load_settings


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "results" / "bench" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_peak_memory_of_a_step_is_that_of_a_process_of_its_own(call, tmp_path):
    mine = np.ones(100_000_000)  # 800 MB that no child may count
    status, output, errors = call(
        "experiments bench", "--parts", "memory", "--datasets", "digits", "--methods", "cs-kd"
    )
    assert (status, errors) == (0, "")
    rows = rows_of(tmp_path, "memory")
    assert [row["method"] for row in rows] == ["cross-entropy", "cs-kd"]
    for row in rows:
        peak = 1e6 * float(row["peak_memory_megabytes"])
        assert 100e6 < peak < memory.peak_bytes(torch.device("cpu")) - mine.nbytes / 2
        assert row["device"] == "cpu"
    assert "peak, MB" in output


def killed(cell, method):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_for_its_memory_is_one_line(monkeypatch):
    monkeypatch.setattr(memory, "steps_of", killed)
    with pytest.raises(UserError, match="the memory of cs-kd was killed, perhaps since memory ran out: give a smaller"):
        memory._alone((), "cs-kd")


def test_a_whole_run_is_measured_from_its_start_to_its_tracking(call, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "METHODS", ("cs-kd",))
    short = ("--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]")
    status, output, errors = call("experiments bench", "--parts", "run", *short)
    assert (status, errors) == (0, "")
    (row,) = rows_of(tmp_path, "run")
    assert (row["dataset"], row["profile"], row["method"], row["epochs"]) == ("digits", "demo", "cs-kd", "2")
    start, own = float(row["start_to_first_step_seconds"]), float(row["set_up_seconds"])
    first = float(row["first_step_seconds"])
    assert 0 < own < start < start + first < float(row["run_seconds"])
    assert float(row["evaluation_seconds_per_1000_images"]) > 0
    share = float(row["tracking_processor_seconds"]) / float(row["processor_seconds"])
    assert 0 < share < 1
    assert float(row["tracking_share"]) == pytest.approx(share, abs=0.01)
    assert "tracking" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "results"]  # nothing of it stays


def test_a_run_that_fails_is_one_line(call, monkeypatch):
    def failed(command, **how):
        return subprocess.CompletedProcess(command, 2, "", "error: no room\n")

    monkeypatch.setattr(subprocess, "run", failed)
    status, _, errors = call("experiments bench", "--parts", "run")
    assert (status, errors) == (2, "error: the run that was to be measured has failed: error: no room\n")


@pytest.mark.parametrize("part", ["run", "profile"])
def test_a_dataset_that_is_not_prepared_is_said_before_anything_is_measured(call, part):
    status, output, errors = call("experiments bench", "--datasets", "cifar100", "--parts", "steps", part)
    assert (status, output) == (2, "")
    assert "cifar100 is not prepared" in errors
    assert "make data DATASET=cifar100" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(("method", "forward", "partner"), [("cross-entropy", 1, 0), ("cs-kd", 2, 1)])
def test_an_epoch_is_taken_apart_by_phase(method, forward, partner, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(phases, "now", lambda device: next(clock))  # a second goes by whenever it is looked at
    profile, settings = load_settings("digits", None, ("width=4",))
    steps = 3
    ours = TimedTrainer(
        made_up("digits", settings, steps), profile, settings, "resnet10", method, uncounted=0, counted=steps
    )
    trainer = ours.trainer
    for _ in range(2):  # the second time nothing of the first is left
        seconds = epoch_by_phase(trainer, 0, compiled=False)
        assert list(seconds) == list(PHASES)
        assert seconds["input"] == steps + 1  # it is asked for one more, to hear that there is none
        assert seconds["forward"] == forward * steps
        assert seconds["partner pass"] == partner * steps
        assert seconds["backward"] == seconds["optimiser"] == steps
        assert seconds["evaluation"] == 1
    assert trainer.loader is ours.watch


def test_an_epoch_is_profiled_by_phase_and_by_operator(call, tmp_path):
    status, output, errors = call("experiments bench", "--parts", "profile", "--set", "width=4")
    assert (status, errors) == (0, "")
    rows = rows_of(tmp_path, "profile")
    for method in ("cross-entropy", "cs-kd"):
        shares = {row["phase"]: float(row["share"]) for row in rows if row["method"] == method}
        assert list(shares) == list(PHASES)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        (text,) = (tmp_path / "results" / "bench").glob(f"profile-digits-resnet10-{method}.txt")
        assert "aten::convolution_backward" in text.read_text()
        assert f"{method}, 4 steps" in text.read_text()
        longest = [row for row in rows_of(tmp_path, "operators") if row["method"] == method]
        shares = [float(row["share"]) for row in longest]
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < sum(shares) <= 1.001
        assert {"aten::convolution_backward", "aten::native_batch_norm"} <= {row["operator"] for row in longest}
        first = longest[0]["operator"]
        assert text.read_text().splitlines()[5].split()[0].startswith(first[:50])  # of the profiler's own table
    assert "partner pass" in output


def test_embedded_images_are_prepared_where_they_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    _, settings = load_settings("digits")
    assert prepared("digits", settings).name == "digits"
    assert (data_dir() / "prepared" / "digits").exists()


def measured(ratio: str, **changes: str) -> dict[str, str]:
    row = {"dataset": "digits", "profile": "demo", "architecture": "resnet10", "method": "cs-kd", "batch_size": "32"}
    on = {"machine": "one", "device": "cpu", "precision": "bf16", "compiled": "False", "threads": "2"}
    return row | on | {"ratio": ratio} | changes


def kept(tmp_path: Path, *rows: dict[str, str]) -> list[dict[str, str]]:
    """The file that can be committed, after these rows were measured."""
    console = Console(quiet=True)
    files.write_rows("steps", list(rows), console)
    files.keep("steps", tmp_path / "measured", console)
    with (tmp_path / "measured" / "bench-steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def results(monkeypatch, tmp_path):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    return tmp_path


def test_kept_rows_take_the_place_of_those_of_the_same_step_and_machine(results):
    first, other, elsewhere = measured("1.3"), measured("1.0", method="cross-entropy"), measured("1.2", machine="two")
    assert kept(results, first, other) == [first, other]
    assert kept(results, elsewhere) == [first, other, elsewhere]
    assert kept(results, measured("1.4")) == [other, elsewhere, measured("1.4")]
    larger = measured("1.1", batch_size="64")
    assert kept(results, larger) == [other, elsewhere, measured("1.4"), larger]
    on_gpu = measured("1.5", device="H200", peak="9")  # a later version has a column more
    assert kept(results, on_gpu) == [
        {**row, "peak": row.get("peak", "")} for row in (other, elsewhere, measured("1.4"), larger, on_gpu)
    ]


def test_a_file_that_is_no_such_table_is_named_and_stays(results):
    kept(results, measured("1.3"))
    path = results / "measured" / "bench-steps.csv"
    path.write_text("fault,tried\nfire,3\n")
    with pytest.raises(
        UserError, match=r"bench-steps\.csv is no table of steps \('dataset'\): restore it, or remove it"
    ):
        kept(results, measured("1.4"))
    assert path.read_text() == "fault,tried\nfire,3\n"


def test_what_is_measured_is_kept_where_that_is_asked(call, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.commands.bench.MEASURED", tmp_path / "kept")
    asked = ("--parts", "steps", "--datasets", "digits", "--methods", "cs-kd", "--turns", "1", "--steps", "1")
    assert call("experiments bench", *asked)[0] == 0
    assert not (tmp_path / "kept").exists()
    assert call("experiments bench", *asked, "--keep")[0] == 0
    assert (tmp_path / "kept" / "bench-steps.csv").read_text() == (
        tmp_path / "results" / "bench" / "steps.csv"
    ).read_text()
