"""Build a run's trainer from its spec: data, network, method, teacher; and compile its training step."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch

from cskd import NUMERICS_VERSION
from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.splits import Split, some_of
from cskd.data.store import Dataset
from cskd.data.torchvision_loader import TorchvisionLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import build_method
from cskd.models import Classifier
from cskd.models.weights import load_weights, start_from
from cskd.train.distributed import SINGLE, Replicas
from cskd.train.schedule import Schedule
from cskd.train.trainer import Trainer
from cskd.utils.cli import data_dir
from cskd.utils.errors import UserError, root_cause
from cskd.utils.integrity import read_archive
from experiments.config.datasets import open_data
from experiments.config.recipe import Settings
from experiments.config.spec import RunSpec
from experiments.config.splits import MAX_UNUSED_IMAGES, make_splits
from experiments.launch.network import initialised_model
from experiments.runs.folder import DONE, RunFolder

PIPELINES = {"batched": TrainLoader, "torchvision": TorchvisionLoader}


def build_trainer(
    spec: RunSpec, folder: RunFolder, device: torch.device, precision: str, replicas: Replicas = SINGLE
) -> Trainer:
    """Return a run's trainer, made from its spec, the prepared data, its checkpoint and its teacher's weights."""
    if spec.numerics_version != NUMERICS_VERSION:
        message = f"numerics version {spec.numerics_version}, this is {NUMERICS_VERSION}"
        raise UserError(f"the run was planned by another version of the suite ({message}): launch its grid again")
    dataset = open_data(spec.dataset, spec.settings.data, data_dir(), test=spec.validation is None)
    if dataset.digest != spec.data_digest:
        raise UserError(f"the data of {spec.dataset} have changed since the run was planned: launch the grid again")
    teacher = load_teacher(spec.teacher, folder.path.parent, dataset) if spec.teacher else None
    return build_on(
        spec,
        dataset,
        device,
        precision,
        teacher=teacher,
        checkpoint=folder.checkpoint,
        before_replace=folder.before_replace,
        replicas=replicas,
    )


def build_on(
    spec: RunSpec,
    dataset: Dataset,
    device: torch.device,
    precision: str,
    *,
    teacher: Classifier | None = None,
    checkpoint: Path | None = None,
    before_replace: Callable[[], None] = lambda: None,
    replicas: Replicas = SINGLE,
) -> Trainer:
    """Return the trainer of a run on an opened dataset; the arguments from ``checkpoint`` on are as in Trainer."""
    settings = spec.settings
    method = build_method(spec.method, spec.parameters)
    splits = make_splits(spec, dataset)
    inputs = settings.inputs
    if inputs.train == "pad-crop":
        augmentation = PadAndCrop(inputs.image_size, inputs.padding, inputs.flip)
    else:
        augmentation = ResizedCrop(inputs.image_size, inputs.flip)
    center_crop = CenterCrop(inputs.image_size, inputs.test_resize)
    loader = PIPELINES[settings.pipeline](
        splits.train,
        augmentation,
        center_crop,
        views=method.views,
        batch_size=settings.batch_size,
        seed=spec.seed,
        device=device,
    )
    batch_size = evaluation_batch_size(device, inputs.image_size)

    def images_of(split: Split) -> TestSet:
        data = {"batch_size": batch_size, "device": device, "classes": splits.classes}
        return TestSet(split, center_crop, replica=replicas, **data)

    model = initialised_model(spec, len(splits.classes))
    if settings.weights:
        state, digest = load_weights(spec.architecture, settings.weights, data_dir())
        if digest != spec.weights_digest:
            raise UserError(f"{settings.weights} has changed since the run was planned: launch the grid again")
        start_from(model, state)
    return Trainer(
        model,
        method,
        loader,
        images_of(splits.test),
        Normalise(inputs.mean, inputs.std, device),
        Schedule(**spec.schedule.model_dump()),
        seed=spec.seed,
        device=device,
        precision=precision,
        teacher=teacher,
        eval_split=spec.eval_split,
        domains=dataset.domains_of(splits.classes),
        unused=None if splits.unused is None else lambda: images_of(some_of(splits.unused, MAX_UNUSED_IMAGES)),
        near_ood=None if splits.near_ood is None else lambda: images_of(some_of(splits.near_ood, MAX_UNUSED_IMAGES)),
        checkpoint=checkpoint,
        identity=spec.run_key,
        before_replace=before_replace,
        replicas=replicas,
    )


def evaluation_batch_size(device: torch.device, size: int) -> int:
    """Return the images of an evaluation batch: 500; on a GPU as many as have the pixels of 500 images of 224 px.

    The trainer halves batches that do not fit. On a CPU, another number would change the last bits of the results.
    """
    return 500 if device.type == "cpu" else max(1, 500 * 224**2 // size**2)


def load_teacher(spec: RunSpec, runs_dir: Path, dataset: Dataset) -> Classifier:
    """Return the trained network of a teacher's run. Raises UserError if that run is not done."""
    folder = RunFolder.of(spec, runs_dir)
    if folder.state()["state"] != DONE:
        raise UserError(f"the teacher {spec.name} is not trained yet: {folder.path} must be done first")
    num_classes = len(make_splits(spec, dataset).classes)
    model = initialised_model(spec, num_classes)
    try:
        model.load_state_dict(torch.load(read_archive(folder.weights), map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        message = f"the weights of the teacher, {folder.weights}, were deleted"
        raise UserError(f"{message}: remove {folder.path} and launch the grid again") from error
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        message = f"the weights of the teacher, {folder.weights}, cannot be read ({type(error).__name__})"
        raise UserError(f"{message}: launch the grid again, which trains the teacher again") from error
    return model


def should_compile(settings: Settings, device: torch.device) -> bool:
    """Return whether a new run is compiled on this device; "auto" compiles on a GPU only."""
    return device.type == "cuda" if settings.compile == "auto" else settings.compile


def compile_step(trainer: Trainer, settings: Settings) -> str:
    """Compile the training step. Return "", or why this machine cannot compile it.

    Raises UserError instead if the settings require compiling.
    """
    try:
        trainer.compile()
    except Exception as error:
        # A missing compiler, driver or header raises exceptions of many kinds.
        problem = f"torch.compile does not work here ({root_cause(error, width=200)})"
        if settings.compile is True:
            raise UserError(f"{problem}: run with SET=compile=auto, or install what it needs") from error
        return problem
    return ""
