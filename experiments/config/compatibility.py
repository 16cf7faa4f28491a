"""Whether a recipe's settings and a dataset go together: told when a run is planned, before anything is written."""

from cskd.data.splits import Split
from cskd.utils.errors import UserError
from experiments.config.recipe import Settings


def check_compatibility(name: str, settings: Settings, train: Split, evaluated: Split) -> None:
    """Raises UserError, naming the setting, for what could not be trained or tested: before anything is written."""
    inputs, batch = settings.inputs, settings.batch_size
    if not len(evaluated):
        raise UserError(f"'subset.classes': {name} has no test image of the classes that are chosen: choose more")
    if len(train) % batch == 1:
        raise UserError(
            f"'batch_size': {batch} leaves a last batch of one of the {len(train):,} training images of {name}, which "
            "BatchNorm cannot train on: choose another"
        )
    if inputs.train == "pad-crop" and (train.sizes != inputs.image_size).any():
        size = inputs.image_size
        raise UserError(
            f"'inputs.image_size': pad-crop needs images of {size} x {size} px throughout, those of {name} have "
            f"{_sides(train)} px: take their size, or inputs.train=resized-crop"
        )
    smallest = min(int(split.sizes.min()) for split in (train, evaluated))
    if inputs.test_resize is None and smallest < inputs.image_size:
        raise UserError(
            f"'inputs.test_resize': not given, and images of {name} of {smallest} px are smaller than the "
            f"{inputs.image_size} px of inputs.image_size: give test_resize, or a smaller image_size"
        )


def _sides(split: Split) -> str:
    """What the sides of a split's images measure: "32", or "120 to 500"."""
    least, most = int(split.sizes.min()), int(split.sizes.max())
    return str(least) if least == most else f"{least} to {most}"
