"""The images that a run trains and is evaluated on, and checks that they are compatible with the recipe's settings."""

from cskd.data.splits import Split, Splits, hold_out, indices_digest, restrict, some_of
from cskd.data.store import Dataset
from cskd.utils.errors import UserError
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec, Validation

MAX_UNUSED_IMAGES = 10_000  # as validation images, and of those whose predictions a run stores


def count_images(name: str, dataset: Dataset, settings: Settings) -> tuple[int, int, int]:
    """Return the numbers of (classes, training images, test images) of a recipe.

    Raises UserError, with the setting, if recipe and dataset are incompatible.
    """
    splits = _select(name, dataset, settings, seed=0)
    _check_compatibility(name, settings, splits.train, splits.test)
    return len(splits.classes), len(splits.train), len(splits.test)


def make_validation(name: str, dataset: Dataset, settings: Settings, seed: int) -> tuple[Validation, int, int]:
    """Return the validation images of a run, and its numbers of training and validation images.

    Raises UserError, with the setting, if recipe and dataset are incompatible.
    """
    splits = _select(name, dataset, settings, seed)
    fraction = None if settings.validate_on == "unused" else settings.validation_fraction
    if fraction is None and splits.unused is None:
        raise UserError(f"'validate_on': {name} trains on all images of its classes, so none is unused: use held-out")
    train, validation = _validation_split(name, splits, fraction)
    _check_compatibility(name, settings, train, validation)
    return Validation(fraction=fraction, indices_digest=indices_digest(validation)), len(train), len(validation)


def make_splits(spec: RunSpec, dataset: Dataset) -> Splits:
    """Return what a run is trained and evaluated on. The test split of a tuning run is its validation split."""
    splits = _select(spec.dataset, dataset, spec.settings, spec.seed)
    if spec.validation is None:
        return splits
    train, validation = _validation_split(spec.dataset, splits, spec.validation.fraction)
    if indices_digest(validation) != spec.validation.indices_digest:
        raise UserError(f"the validation split of {spec.dataset} has changed: tune again with another STUDY")
    return Splits(splits.classes, train, validation)


def _validation_split(name: str, splits: Splits, fraction: float | None) -> tuple[Split, Split]:
    """Return (training split, validation split). fraction: None validates on the images that the subset leaves out."""
    if fraction is None:
        return splits.train, some_of(splits.unused, MAX_UNUSED_IMAGES)
    return hold_out(name, splits.train, fraction)


def _select(name: str, dataset: Dataset, settings: Settings, seed: int) -> Splits:
    """Return the splits of the recipe's subset."""
    subset = settings.subset
    if subset is None:
        return Splits(dataset.classes, dataset.train, dataset.test)
    return restrict(
        name,
        dataset.classes,
        dataset.train,
        dataset.test,
        num_classes=subset.classes,
        images_per_class=subset.images_per_class,
        seed=seed if subset.draw == "seed" else 0,
    )


def _check_compatibility(name: str, settings: Settings, train: Split, test: Split) -> None:
    """Raise UserError, with the setting, if settings and dataset are incompatible. test: test or validation split."""
    inputs, batch = settings.inputs, settings.batch_size
    if not len(test):
        raise UserError(f"'subset.classes': {name} has no test image in these classes: choose more classes")
    if len(train) % batch == 1:
        raise UserError(
            f"'batch_size': {batch} leaves a last batch of one of the {len(train):,} training images of {name}, which "
            "BatchNorm cannot train on: choose another"
        )
    if inputs.train == "pad-crop" and (train.sizes != inputs.image_size).any():
        size = inputs.image_size
        raise UserError(
            f"'inputs.image_size': pad-crop needs images of {size} x {size} px, those of {name} have sides of "
            f"{_sides(train)} px: use their size, or inputs.train=resized-crop"
        )
    smallest = min(int(split.sizes.min()) for split in (train, test))
    if inputs.test_resize is None and smallest < inputs.image_size:
        raise UserError(
            f"'inputs.test_resize': missing, but images of {name} have only {smallest} px, fewer than the "
            f"{inputs.image_size} px of inputs.image_size: set test_resize, or a smaller image_size"
        )


def _sides(split: Split) -> str:
    """Return the range of the images' sides: "32", or "120 to 500"."""
    low, high = int(split.sizes.min()), int(split.sizes.max())
    return str(low) if low == high else f"{low} to {high}"
