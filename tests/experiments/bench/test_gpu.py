"""The part gpu: its stages on the CPU, and stages that fail, hang or end their process."""

import json
import multiprocessing
import os
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from experiments.bench import gpu, gpu_speed
from experiments.bench.clone import Clone
from experiments.bench.gpu_trainers import Lab

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forked_processes(monkeypatch):
    """They need not import torch again."""
    monkeypatch.setattr(gpu_speed, "PROCESSES", multiprocessing.get_context("fork"))


def failing(lab: Lab) -> dict:
    raise gpu.gpu_stages.Failed("the loss is 2, the CPU's 1")


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """Run stages of one's own; return (exit status, rows)."""

    def run(limits: dict[str, int], **stages) -> tuple[int, list[dict]]:
        limited = {name: gpu.Stage(stage, limits.get(name, 60)) for name, stage in stages.items()}
        monkeypatch.setattr(gpu, "STAGES", limited)
        status = gpu.run_stages(tmp_path)
        return status, [json.loads(line) for line in (tmp_path / gpu.FILE).read_text().splitlines()]

    return run


def test_every_stage_passes_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_speed, "released_code", lambda *_: nullcontext(SimpleNamespace(turn=lambda number: 60.0)))
    lab = Lab(CPU, tmp_path, Clone(tmp_path, "a commit"))
    rows = {name: gpu.run_stage(name, lab) for name in gpu.STAGES}
    results = {name: row["result"] for name, row in rows.items()}
    assert results == dict.fromkeys(gpu.STAGES, gpu.PASSED) | {"compiled step": gpu.SKIPPED}
    assert rows["captured steps"]["values"]["identical"] and rows["last batch"]["values"]["identical"]
    assert rows["released cs-kd"]["values"]["ratio"] > 1
    assert rows["two runs at once"]["values"]["images_per_second"] > 0
    assert "aten::" in (tmp_path / "gpu-kernels.txt").read_text()
    json.dumps(rows)


def test_compiled_step_is_compared_with_the_eager_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    lab = Lab(CPU, tmp_path)
    lab.compiles = True
    assert gpu.run_stage("compiled step", lab)["result"] == gpu.PASSED
    not_captured = gpu.run_stage("captured steps", lab)  # that is for GPUs
    assert (not_captured["result"], not_captured["reason"]) == (gpu.FAILED, "Failed: the step was not captured")


def test_a_stage_that_fails_hangs_or_dies_does_not_stop_the_next(rows_of, monkeypatch):
    def hanging(lab: Lab) -> dict:
        time.sleep(60)

    stages = {"first": lambda lab: {"x": 1}, "fails": failing, "hangs": hanging, "dies": lambda lab: os._exit(7)}
    stages |= {"last": lambda lab: {"process": os.getpid()}}
    status, rows = rows_of(limits={"hangs": 1}, **stages)
    assert status == 1
    assert [(row["stage"], row["result"], row["reason"]) for row in rows] == [
        ("first", gpu.PASSED, ""),
        ("fails", gpu.FAILED, "Failed: the loss is 2, the CPU's 1"),
        ("hangs", gpu.FAILED, "no result within 1 s"),
        ("dies", gpu.FAILED, "its process ended with status 7"),
        ("last", gpu.PASSED, ""),
    ]
    assert rows[0]["values"] == {"x": 1}
    assert rows[-1]["values"]["process"] != os.getpid()


def test_bench_runs_the_part_gpu_alone(call, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "STAGES", {"device": gpu.Stage(lambda lab: {"torch": "2"}, 30)})
    status, output, errors = call("experiments bench", "--parts", "gpu")
    assert (status, errors) == (0, "")
    assert output.startswith("passed  device, ") and ": torch 2\n1 of 1 stages" in output
    assert json.loads((tmp_path / "results" / "bench" / gpu.FILE).read_text())["result"] == gpu.PASSED
    status, _, errors = call("experiments bench", "--parts", "gpu", "steps")
    assert (status, errors.count("\n")) == (2, 1)
