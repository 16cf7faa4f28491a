"""From a run's spec to its trainer: data, network, method, teacher."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch

from cskd import NUMERICS_VERSION
from cskd.data.loader import Normalise, TestSet, TrainLoader
from cskd.data.store import Dataset
from cskd.data.torchvision_loader import TorchvisionLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import build_method
from cskd.models import Classifier, build_model
from cskd.train.trainer import Schedule, Trainer
from cskd.utils.cli import data_dir
from cskd.utils.errors import UserError
from cskd.utils.integrity import read_sealed
from cskd.utils.seeding import derived_seed
from experiments.config.datasets import open_data
from experiments.config.spec import RunSpec, make_splits
from experiments.runs.folder import DONE, RunFolder

PIPELINES = {"batched": TrainLoader, "torchvision": TorchvisionLoader}


def build_trainer(
    spec: RunSpec, folder: RunFolder, device: torch.device, precision: str, known_epochs: int | None = None
) -> Trainer:
    """Everything a run is made of, from its spec, the prepared data and, if it is taught, its teacher's folder."""
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
        known_epochs=known_epochs,
        before_replace=folder.before_replace,
    )


def build_on(
    spec: RunSpec,
    dataset: Dataset,
    device: torch.device,
    precision: str,
    *,
    teacher: Classifier | None = None,
    checkpoint: Path | None = None,
    known_epochs: int | None = None,
    before_replace: Callable[[], None] = lambda: None,
) -> Trainer:
    """The trainer of a run on an opened dataset. checkpoint: the file to resume from and to keep; None: neither.
    known_epochs and before_replace: as the trainer's.
    """
    settings = spec.settings
    method = build_method(spec.method, spec.parameters)
    classes, train, evaluated = make_splits(spec, dataset)
    inputs = settings.inputs
    if inputs.train == "pad-crop":
        augmentation = PadAndCrop(inputs.image_size, inputs.padding, inputs.flip)
    else:
        augmentation = ResizedCrop(inputs.image_size, inputs.flip)
    center_crop = CenterCrop(inputs.image_size, inputs.test_resize)
    loader = PIPELINES[settings.pipeline](
        train,
        augmentation,
        center_crop,
        views=method.views,
        batch_size=settings.batch_size,
        seed=spec.seed,
        device=device,
    )
    return Trainer(
        initialised_model(spec, len(classes)),
        method,
        loader,
        TestSet(
            evaluated,
            center_crop,
            batch_size=evaluation_batch(device, inputs.image_size),
            device=device,
            classes=classes,
        ),
        Normalise(inputs.mean, inputs.std, device),
        Schedule(**settings.schedule.model_dump()),
        seed=spec.seed,
        device=device,
        precision=precision,
        teacher=teacher,
        evaluated=spec.eval_split,
        domains=dataset.domains_of(classes),
        checkpoint=checkpoint,
        known_epochs=known_epochs,
        identity=spec.run_key,
        before_replace=before_replace,
    )


def evaluation_batch(device: torch.device, size: int) -> int:
    """Images of an evaluation's batch: on a GPU as many as are in 500 of 224 px; the trainer halves what does not fit.

    On a CPU more than 500 gain nothing, and another number would change the last bits of earlier results.
    """
    return 500 if device.type == "cpu" else max(1, 500 * 224**2 // size**2)


def load_teacher(spec: RunSpec, runs_dir: Path, dataset: Dataset) -> Classifier:
    """The trained network of the run that teaches. Raises UserError where that run is not done."""
    folder = RunFolder.of(spec, runs_dir)
    if folder.state()["state"] != DONE:
        raise UserError(f"the teacher {spec.name} is not trained yet: {folder.path} must be done first")
    num_classes = len(make_splits(spec, dataset)[0])
    model = initialised_model(spec, num_classes)
    try:
        model.load_state_dict(torch.load(read_sealed(folder.weights), map_location="cpu", weights_only=True))
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        message = f"the weights of the teacher, {folder.weights}, cannot be read ({type(error).__name__})"
        raise UserError(f"{message}: launch the grid again, which trains it anew") from error
    return model


def initialised_model(spec: RunSpec, num_classes: int) -> Classifier:
    """The network with the weights that the seed draws, whatever was drawn before."""
    method = build_method(spec.method, spec.parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "init"))
        return build_model(
            spec.architecture,
            num_classes,
            spec.settings.inputs.image_size,
            width=spec.settings.width,
            build_head=method.build_head,
            build_auxiliary=method.build_auxiliary,
        )
