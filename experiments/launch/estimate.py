"""Estimate what runs need before they start: time, memory, disk."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cskd.batch import Batch, Normalise
from cskd.methods import build_method
from cskd.methods.base import ForwardCache
from cskd.models import Classifier
from cskd.models.weights import load_weights, start_from
from cskd.train.precision import autocast, resolve
from cskd.utils import limits
from cskd.utils.cli import data_dir
from cskd.utils.errors import UserError
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec
from experiments.launch.network import initialised_model
from experiments.runs.environment import choose_device
from experiments.runs.plan import PlannedRun

# Of the timed batch: large enough to be typical, small enough to be fast. With fewer, a GPU would wait for the host.
PROBE_PIXELS = {"cpu": 32 * 32 * 32, "cuda": 256 * 32 * 32}
PAPER_WIDTH, PAPER_SIZE = 64, 224  # networks up to the paper's are timed without checking the memory first


class Estimator:
    """Estimates the time of runs; each kind of training step is timed once. workers: runs at once, on its threads."""

    def __init__(self, workers: int):
        self._workers = workers
        self._seconds_per_image: dict[tuple, tuple[float, float]] = {}

    def seconds(self, run: PlannedRun) -> float:
        """Return the seconds of the remaining epochs, from the run's own epochs or from a timed step."""
        total = run.spec.settings.schedule.epochs
        remaining = total - run.folder.epochs_to_resume_from()
        if run.folder.count_epochs():
            metrics = [record["metrics"] for record in run.folder.epochs()]
            return remaining * float(np.mean([m["time/train_seconds"] + m["time/test_seconds"] for m in metrics]))
        return self.seconds_from_start(run) * remaining / total

    def seconds_from_start(self, run: PlannedRun) -> float:
        """Return the seconds of training and testing in all epochs."""
        train, test = self._measure(run)
        settings = run.spec.settings
        devices = settings.replicas if torch.cuda.is_available() else 1  # replicas on a CPU share its cores
        return settings.schedule.epochs * (run.train_images * train + run.test_images * test) / devices

    def _measure(self, run: PlannedRun) -> tuple[float, float]:
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
            settings.threads,
        )
        if kind not in self._seconds_per_image:
            threads = torch.get_num_threads()
            torch.set_num_threads(min(settings.threads or max(1, threads // self._workers), threads))
            self._seconds_per_image[kind] = time_step(run)
            torch.set_num_threads(threads)
            torch.cuda.empty_cache()  # the runs need the memory; this process lives as long as they do
        return self._seconds_per_image[kind]


def time_step(run: PlannedRun) -> tuple[float, float]:
    """Return (seconds per training image, seconds per test image), measured on random images.

    Raises UserError if this machine has too little memory for the network.
    """
    settings, device = run.spec.settings, choose_device()
    size = settings.inputs.image_size
    count = probe_images(settings, device)
    if settings.width > PAPER_WIDTH or size > PAPER_SIZE:
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
            cache = ForwardCache(model, method.transform(batch, torch.Generator()), normalise, teacher)
            loss = sum(term.weight * term.loss(cache) for term in method.terms())
        loss.backward()

    def test_step() -> None:
        with torch.no_grad(), autocast(precision, device):
            model(normalise(images))

    return _min_seconds(train_step, device) / count, _min_seconds(test_step, device) / count


def probe_images(settings: Settings, device: torch.device) -> int:
    """Return the number of images in the timed batch."""
    return min(settings.batch_size, max(8, PROBE_PIXELS[device.type] // settings.inputs.image_size**2))


def _min_seconds(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of the faster of two calls, after a warm-up."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def check_memory(spec: RunSpec, num_classes: int, images: int, device: torch.device) -> None:
    """Raise UserError if the device has too little memory for a training step."""
    settings = spec.settings
    check_free_memory(
        f"{spec.cell}: a step of {images:,} images",
        step_bytes(spec, num_classes, images),
        device,
        f"lower 'width' ({settings.width}), 'inputs.image_size' ({settings.inputs.image_size}) or 'batch_size' "
        f"({settings.batch_size})",
    )


def check_weights(run: PlannedRun) -> None:
    """Raise UserError if the weights that a run starts from are of another network."""
    spec = run.spec
    model = _without_weights(spec, run.num_classes)
    state, _ = load_weights(spec.architecture, spec.settings.weights, data_dir())
    try:
        start_from(model, {name: tensor.to("meta") for name, tensor in state.items()})
    except UserError as error:
        raise UserError(f"{spec.cell}: weights={spec.settings.weights}: {error}") from error


def check_free_memory(subject: str, needed: int, device: torch.device, remedy: str) -> None:
    free = free_memory(device)
    if needed > free:
        message = f"{subject} takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        raise UserError(f"{message}: {remedy}")


def step_bytes(spec: RunSpec, num_classes: int, images: int) -> int:
    """Return the bytes of weights, gradients, a teacher's weights, and the tensors saved for the backward pass."""
    method, size = build_method(spec.method, spec.parameters), spec.settings.inputs.image_size
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    # Two real images show which tensors the method adds to a batch.
    labels = torch.zeros(2, dtype=torch.long)
    small = Batch(dict.fromkeys(method.views, torch.zeros(2, 3, 1, 1)), labels, labels, num_classes)
    added = {name: view for name, view in method.transform(small, torch.Generator()).views.items() if view.ndim != 4}
    model = _without_weights(spec, num_classes)
    teacher = _without_weights(spec.teacher, num_classes) if spec.teacher else None
    # Tensors without content on the CPU; autocast does not support torch's device "meta".
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in filter(None, (model, teacher)):
            network.to_empty(device="cpu")
        labels = torch.zeros(images, dtype=torch.long)
        views = dict.fromkeys(method.views, torch.empty(images, 3, size, size))
        views |= {name: torch.empty(images, *view.shape[1:], dtype=view.dtype) for name, view in added.items()}
        batch = Batch(views, labels, labels, num_classes)
        cache = ForwardCache(model, batch, lambda view: view, teacher)
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            for term in method.terms():
                term.loss(cache)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    return activations + 2 * _bytes(model) + (_bytes(teacher) if teacher else 0)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a GPU, or of the main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return limits.free_memory()


def disk_bytes(run: PlannedRun) -> int:
    """Return the bytes that a run needs in its folder and, for the copy of its results, in the tracking store."""
    model = _without_weights(run.spec, run.num_classes)
    weights = _bytes(model)
    predictions = 4 * run.test_images * (run.num_classes + model.backbone.feature_size)
    checkpoints = 2 * 2 * weights  # two, each with the momentum; removed before the results are copied
    return weights + predictions + max(checkpoints, weights + predictions)


def _without_weights(spec: RunSpec, num_classes: int) -> Classifier:
    """Return the run's network on torch's device meta, which needs no memory."""
    with torch.device("meta"):
        return initialised_model(spec, num_classes)


def _bytes(model: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
