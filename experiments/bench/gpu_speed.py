"""The stages of the part ``gpu`` that measure time: a run, steps of both methods, the released code, the kernels."""

import math
import multiprocessing
import os
import tempfile
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from cskd.methods import build_method
from experiments.bench.clone import released_code
from experiments.bench.device import matmul_rate, peak_bytes
from experiments.bench.gpu_stages import Skipped, Values, check
from experiments.bench.gpu_trainers import Lab
from experiments.bench.timed_steps import TimedSteps
from experiments.runs.environment import choose_device

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no messages about the profiler's start or a missing GPU

PROFILED_STEPS = 10
PROCESSES = multiprocessing.get_context("spawn")
START_SECONDS = 180  # of a process until it trains, with compilation


def whole_run(lab: Lab) -> Values:
    """Check that three epochs lower the loss; return their times, and the share of all else."""
    trainer = lab.trainer()
    with tempfile.TemporaryDirectory() as folder:
        trainer.checkpoints.file = Path(folder) / "checkpoint.pt"
        started = time.perf_counter()
        predictions = trainer.run()
        seconds = time.perf_counter() - started
        trainer.checkpoints.file = None
    metrics = [record["metrics"] for record in trainer.records]
    losses = [values["train/loss"] for values in metrics]
    check(len(losses) == 3 and losses[-1] < losses[0], f"the losses of the epochs are {losses}")
    check(len(predictions.logits) == lab.size.test_images, f"{len(predictions.logits)} predictions")
    check(all(math.isfinite(value) for values in metrics for value in values.values()), "a metric is not finite")
    train, test = (sum(values[f"time/{part}_seconds"] for values in metrics) for part in ("train", "test"))
    return {
        "epoch_train_seconds": [round(values["time/train_seconds"], 4) for values in metrics],
        "epoch_test_seconds": [round(values["time/test_seconds"], 4) for values in metrics],
        "images_per_second": round(metrics[-1]["time/images_per_second"], 1),
        "other_share": round(1 - (train + test) / seconds, 4),
        "peak_memory_megabytes": round(peak_bytes(lab.device) / 1e6, 1),
    }


def speed(lab: Lab, method: str) -> Values:
    """Return the seconds of a step as a run makes it, of an eager one, and of the released code, in turns."""
    size, parts = lab.size, {}
    timed = parts["step"] = _timed(lab, lab.trainer(method))
    flops = timed.count_flops()
    parts["eager_step"] = _timed(lab, lab.new_trainer(method, few=False))
    seconds: dict[str, list[float]] = {name: [] for name in (*parts, "input", "matmul")}
    for turn in range(1 + size.turns):
        values = {name: part.turn(turn) for name, part in parts.items()}
        values |= {"input": timed.input_turn(turn), "matmul": flops / matmul_rate(lab.device, lab.precision)}
        for name, value in values.items():
            if turn:  # the first one is slow
                seconds[name].append(value)
    step = median(seconds["step"])
    return {
        "seconds_per_step": step,
        "images_per_second": round(size.batch_size / step, 1),
        "seconds_per_eager_step": median(seconds["eager_step"]),
        "flops_per_step": flops,
        "matmul_share": round(median(seconds["matmul"]) / step, 4),
        "input_share": round(median(seconds["input"]) / step, 4),
    }


def _timed(lab: Lab, trainer) -> TimedSteps:
    return TimedSteps(trainer, uncounted=1, counted=lab.size.steps)


def two_runs(lab: Lab) -> Values:
    """Return the images/s of two processes that train cs-kd on the device at once, as WORKERS=2 does."""
    rate, flops = matmul_rate(lab.device, lab.precision), _timed(lab, lab.trainer()).count_flops()
    both_ready, seconds = PROCESSES.Barrier(2), PROCESSES.SimpleQueue()
    processes = [
        PROCESSES.Process(target=_train_beside, args=(both_ready, seconds, lab.folder), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    check(not any(process.exitcode for process in processes), "a process has failed")
    steps_per_second = sum(1 / seconds.get() for _ in processes)
    return {
        "images_per_second": round(lab.size.batch_size * steps_per_second, 1),
        "matmul_share": round(flops * steps_per_second / rate, 4),
    }


def _train_beside(both_ready: Barrier, seconds: SimpleQueue, folder: Path) -> None:
    lab = Lab(choose_device(), folder)
    timed = _timed(lab, lab.trainer())
    timed.turn(0)
    both_ready.wait(START_SECONDS)
    seconds.put(median(timed.turn(turn) for turn in range(1, 1 + lab.size.turns)))


def released_speed(lab: Lab, method: str) -> Values:
    """Return the seconds of a step of the released code, in fp32, beside one of this suite, in turns."""
    if lab.clone is None:
        raise Skipped("no clone of the released code is given")
    size, ours = lab.size, _timed(lab, lab.trainer(method))
    cskd = build_method(method) if method == "cs-kd" else None
    with released_code(lab.clone, size.batch_size, size.classes, size.steps, cskd) as released:
        turns = [(ours.turn(turn), released.turn(turn)) for turn in range(1 + size.turns)][1:]
    step, theirs = (median(values) for values in zip(*turns, strict=True))
    return {
        "seconds_per_step": step,
        "seconds_per_step_released": theirs,
        "ratio": round(median(released / own for own, released in turns), 3),
        "released_commit": lab.clone.commit,
    }


def kernels(lab: Lab) -> Values:
    """Write the kernels of some steps, slowest first, to a file."""
    timed = TimedSteps(lab.trainer(), uncounted=0, counted=min(PROFILED_STEPS, lab.size.steps))
    timed.turn(0)
    on_gpu = lab.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        timed.turn(1)
        if on_gpu:
            torch.cuda.synchronize()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    path = lab.folder / "gpu-kernels.txt"
    path.write_text(profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=80))
    return {"file": path.name}
