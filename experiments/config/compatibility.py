"""Checks that a recipe's settings and a dataset are compatible, before anything is written."""

from cskd.data.splits import Split
from cskd.utils.errors import UserError
from experiments.config.recipe import Settings


def check_compatibility(name: str, settings: Settings, train: Split, test: Split) -> None:
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
