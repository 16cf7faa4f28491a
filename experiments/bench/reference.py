"""The part ``reference``: a step of this suite against the released code, which runs in its own process."""

from contextlib import ExitStack

from cskd.methods import build_method
from cskd.utils.errors import UserError
from experiments.bench.clone import Clone, released_code
from experiments.bench.images import CLASSES, noise_images
from experiments.bench.results import COMPARED, Cell, Options, Row
from experiments.bench.timing import TimedTrainer, Turns, comparison_columns, comparison_row, take_turns
from experiments.config.recipe import load_settings

DATASET, ARCHITECTURE, WIDTH = "cifar100", "resnet18", 64
TABLE = comparison_columns("released", "released code, fp32")


def reference_cell(overrides: tuple[str, ...]) -> Cell:
    """Return the cell that the released code can train. Raises UserError if the overrides change network or inputs."""
    profile, settings = load_settings(DATASET, None, overrides)
    inputs = settings.inputs
    network = (settings.resolve_architecture(ARCHITECTURE), settings.width, inputs.train, inputs.image_size)
    if network != (ARCHITECTURE, WIDTH, "pad-crop", 32):
        raise UserError(
            f"the released code has a {ARCHITECTURE} of width {WIDTH} for images of 32 px: "
            "do not change the network or its inputs, or leave out the part reference"
        )
    return Cell(DATASET, profile, settings.model_copy(update={"subset": None}), ARCHITECTURE)


def measure(clone: Clone, cell: Cell, options: Options) -> dict[str, list[Row]]:
    images = noise_images(cell, 1 + options.steps)
    with ExitStack() as stack:
        methods = []
        for method in COMPARED:
            trainer = TimedTrainer(cell, method, images, uncounted=1, counted=options.steps)
            cskd = build_method(method, cell.settings.parameters_of(method)) if method == "cs-kd" else None
            released = stack.enter_context(released_code(clone, cell.settings.batch_size, CLASSES, options.steps, cskd))
            methods.append(Turns(trainer, {"released": released.turn}))
        take_turns(methods, options)
    return {"reference": [comparison_row(method, "released") | {"released_commit": clone.commit} for method in methods]}
