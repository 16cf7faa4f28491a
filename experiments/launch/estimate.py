"""What a plan will cost: time from a step measured on this machine, disk from the sizes of what is kept."""

import shutil
import time
from pathlib import Path

import numpy as np
import torch

from cskd.data.loader import Batch, Normalise
from cskd.methods import build_method
from cskd.methods.base import ForwardCache
from cskd.train.precision import autocast, resolve
from experiments.launch.build import initialised_model
from experiments.launch.memory import check_memory
from experiments.runs.environment import choose_device
from experiments.runs.folder import DONE
from experiments.runs.plan import PlannedRun

PROBE_PIXELS = 32 * 32 * 32  # of the measured batch: enough to be typical, little enough to take a moment
ORDINARY_WIDTH, ORDINARY_SIZE = 64, 224  # the paper's: a step of such a network fits wherever it can be trained


class Estimator:
    """Estimates runs; each kind of step is measured once."""

    def __init__(self):
        self._measured: dict[tuple, tuple[float, float]] = {}

    def seconds(self, run: PlannedRun) -> float:
        """What is left of the run, training and testing. Its own finished epochs tell, or else a step."""
        state = run.folder.state()
        if state["state"] == DONE:
            return 0.0
        epochs = run.folder.intact_epochs()
        left = run.spec.settings.schedule.epochs - run.folder.epochs_to_resume_from()
        if epochs:
            times = [record["metrics"] for record in epochs]
            return left * float(np.mean([t["time/train_seconds"] + t["time/test_seconds"] for t in times]))
        return self.seconds_anew(run) * left / run.spec.settings.schedule.epochs

    def seconds_anew(self, run: PlannedRun) -> float:
        """Training and testing from the start, whatever there is of the run."""
        train, test = self._per_image(run)
        return run.spec.settings.schedule.epochs * (run.train_images * train + run.test_images * test)

    def _per_image(self, run: PlannedRun) -> tuple[float, float]:
        settings = run.spec.settings
        kind = (
            run.spec.architecture,
            settings.width,
            settings.inputs.image_size,
            run.num_classes,
            run.spec.method,
            run.spec.teacher and run.spec.teacher.architecture,
            settings.precision,
            settings.batch_size,
        )
        if kind not in self._measured:
            self._measured[kind] = measure_step(run)
            torch.cuda.empty_cache()  # the runs' processes need it; this one would keep it until the last of them ends
        return self._measured[kind]


def measure_step(run: PlannedRun) -> tuple[float, float]:
    """(seconds a training image, seconds a test image) of the network alone, on made-up images.

    Raises UserError for a network that this machine has no memory for.
    """
    settings, device = run.spec.settings, choose_device()
    size = settings.inputs.image_size
    count = min(settings.batch_size, max(8, PROBE_PIXELS // size**2))
    if settings.width > ORDINARY_WIDTH or size > ORDINARY_SIZE:
        check_memory(run.spec, run.num_classes, count, device)
    method = build_method(run.spec.method, run.spec.parameters)
    model = initialised_model(run.spec, run.num_classes).to(device, memory_format=torch.channels_last)
    images = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    labels = torch.randint(run.num_classes, (count,), device=device)
    batch = Batch(dict.fromkeys(method.views, images), labels, labels, run.num_classes)
    teacher = None
    if run.spec.teacher:
        teacher = initialised_model(run.spec.teacher, run.num_classes)
        teacher.to(device, memory_format=torch.channels_last).eval()
    normalise = Normalise(settings.inputs.mean, settings.inputs.std, device)
    precision = resolve(settings.precision, device)

    def train_step() -> None:
        with autocast(precision, device):
            passes = ForwardCache(model, method.transform(batch, torch.Generator()), normalise, teacher)
            loss = sum(term.weight * term.loss(passes) for term in method.terms())
        loss.backward()

    def test_step() -> None:
        with torch.no_grad(), autocast(precision, device):
            model(normalise(images))

    return _fastest(train_step, device) / count, _fastest(test_step, device) / count


def _fastest(step, device: torch.device, repeats: int = 2) -> float:
    """Seconds of the fastest of ``repeats`` calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def disk_bytes(run: PlannedRun) -> int:
    """What a run leaves on the disk, in its folder and again in the tracking, or holds while it goes on."""
    with torch.device("meta"):
        model = initialised_model(run.spec, run.num_classes)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    predictions = 4 * run.test_images * (run.num_classes + model.backbone.feature_size)
    checkpoints = 2 * 2 * weights  # two, with the momentum; gone at the end, when the copy in the tracking comes
    return weights + predictions + max(checkpoints, weights + predictions)


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder that need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
