"""Datasets without files, and specs and plans of runs on them."""

from arrays import random_split

from cskd.data.store import Dataset
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec, make_spec
from experiments.runs.plan import Cell, Plan


def digits_data(images: int = 100, size: tuple[int, int] | None = (8, 8), **changes) -> Dataset:
    """Return a dataset of ten classes with noise images. size None: each image has its own size."""
    fields = {"digest": "d", "complete": True, "source": "made up", "short_side": 8} | changes
    train, test = random_split(images, 10, size), random_split(20, 10, size)
    return Dataset(name="digits", classes=tuple("0123456789"), train=train, test=test, **fields)


DIGITS = digits_data()


def digits_spec(
    *overrides: str, architecture: str = "resnet10", method: str = "cs-kd", seed: int = 0, **changes
) -> RunSpec:
    """Return the spec of a run of the digits recipe. changes: of the dataset's fields."""
    profile, settings = load_settings("digits", None, overrides)
    data = Dataset(**(vars(DIGITS) | changes))
    return make_spec("digits", data, profile, settings, architecture, method, seed)


def plan_of(*specs: RunSpec) -> Plan:
    """Return a plan with one cell that has these seeds."""
    cell = Cell(
        name=specs[0].cell,
        key=specs[0].cell_key,
        order=0,
        comparable=specs[0].comparable,
        comparable_reason=specs[0].comparable_reason,
        runs={spec.seed: spec.run_key for spec in specs},
    )
    return Plan(experiment="demo", grid="demo", title="A title", profile="demo", cells=[cell])
