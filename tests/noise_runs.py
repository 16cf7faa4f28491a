"""Runs of recipes on noise images in place of their datasets."""

from pathlib import Path

import numpy as np
import torch

from cskd.data.prepare import prepared_folder
from cskd.data.sources.base import Listing
from cskd.data.store import write_dataset
from cskd.models.build import SMALL_IMAGE
from experiments.config.datasets import open_data, parts_of
from experiments.config.make_spec import make_spec
from experiments.config.recipe import load_settings
from experiments.config.settings import ScheduleSettings
from experiments.config.spec import RunSpec
from experiments.launch.network import initialised_model
from experiments.runs.folder import DONE, RunFolder

CPU = torch.device("cpu")
CLASSES, IMAGES = 3, 4  # classes, and training images of each, of the random datasets


def make_run(
    name: str, profile: str | None, method: str, folder: Path, architecture: str = "resnet18"
) -> tuple[RunSpec, RunFolder]:
    """Return a run of a recipe on a few random images below ``folder``, with a small network and small images."""
    _, settings = load_settings(name, profile)
    overrides = ["batch_size=4"]
    if settings.subset:
        overrides.append(f"subset={{classes: {CLASSES}, images_per_class: {IMAGES}}}")
    if settings.inputs.image_size > SMALL_IMAGE:
        overrides += [f"inputs.image_size={SMALL_IMAGE + 8}", f"inputs.test_resize={SMALL_IMAGE + 16}"]
    else:
        overrides.append("width=4")
    profile, settings = load_settings(name, profile, tuple(overrides))
    inputs = settings.inputs
    side = inputs.image_size if inputs.train == "pad-crop" else inputs.test_resize + 5
    parts = [prepared_folder(part, folder) for part in parts_of(name, settings.data)]
    if not parts[0].exists():
        random = np.random.default_rng(0)
        images = [
            (random.integers(0, 256, size=(side, side, 3), dtype=np.uint8), index % CLASSES)
            for index in range(CLASSES * (IMAGES + 2))
        ]
        split = CLASSES * IMAGES
        listing = Listing(["one", "two", "three"], train=images[:split], test=images[split:])
        for part in parts:
            write_dataset(part, part.name, listing, complete=False, source="made up")
    dataset = open_data(name, settings.data, folder)
    spec = make_spec(name, dataset, profile, settings, settings.resolve_architecture(architecture), method, seed=0)
    run = RunFolder.of(spec, folder / "runs")
    run.create(spec)
    return spec, run


def with_settings(spec: RunSpec, folder: RunFolder, **settings) -> RunFolder:
    """Return the folder of the same run with other settings."""
    spec = spec.model_copy(update={"settings": spec.settings.model_copy(update=settings)})
    folder = RunFolder.of(spec, folder.path.parent)
    folder.create(spec)
    return folder


def schedule_of(epochs: int) -> dict:
    return {"schedule": ScheduleSettings(epochs=epochs, milestones=())}


def finish_teacher(spec: RunSpec, runs: Path) -> RunFolder:
    """Return the run of a spec's teacher, as if it had been trained."""
    folder = RunFolder.of(spec.teacher, runs)
    folder.create(spec.teacher)
    torch.save(initialised_model(spec.teacher, CLASSES).state_dict(), folder.weights)
    folder.write_state(DONE, epoch=1)
    return folder
