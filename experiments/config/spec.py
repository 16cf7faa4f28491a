"""What one run is, and its key: the hash of everything that can change its numbers, and of nothing else."""

import hashlib
import json
from typing import Any

from pydantic import model_validator

from cskd import NUMERICS_VERSION
from cskd.data.splits import Split, hold_out, indices_digest, restrict
from cskd.data.store import Dataset
from cskd.methods import build_method
from cskd.utils.errors import UserError
from experiments.config.compatibility import check_compatibility
from experiments.config.recipe import Settings, StrictModel

# Settings that are not a run's own: where its data are found, what is chosen from, and what it came to is kept apart.
NOT_IN_KEY = {"data", "methods", "from_paper", "architectures", "teacher", "validation_fraction"}
# Settings that came after keys had been made: not in the key at the value that says what had always been done.
DEFAULTS_OMITTED_FROM_KEY = {"compile": "auto", "pipeline": "batched"}


class Validation(StrictModel):
    """The part of the training set that a run is evaluated on in the place of the test set, which stays closed."""

    fraction: float  # of each class's training images
    indices_digest: str  # SHA-256 of which ones they are


class RunSpec(StrictModel):
    """One cell of a grid with one seed, everything resolved."""

    dataset: str
    profile: str
    architecture: str
    method: str
    parameters: dict[str, float]  # the method's hyper-parameters, its defaults included
    seed: int
    settings: Settings
    data_digest: str
    data_complete: bool  # the official numbers of images hold
    data_source: str  # what was read, and how it was checked
    comparable_with_paper: str  # "yes" or "no: <why>"
    validation: Validation | None = None
    teacher: "RunSpec | None" = None  # the run that teaches, for methods that need one
    # Of the code that it was planned for; 1 was the only one when specs did not say.
    numerics_version: int = 1

    @model_validator(mode="before")
    @classmethod
    def without_what_an_earlier_version_kept(cls, raw: Any) -> Any:
        """Settings used to have one ``architecture`` for all; what it came to has always stood beside them."""
        if isinstance(raw, dict) and isinstance(raw.get("settings"), dict):
            kept = {name: value for name, value in raw["settings"].items() if name != "architecture"}
            return raw | {"settings": kept}
        return raw

    @property
    def eval_split(self) -> str:
        """The split that the run is evaluated on, and the prefix of its metrics: "test" or "validation"."""
        return "validation" if self.validation else "test"

    @property
    def cell(self) -> str:
        return f"{self.dataset}/{self.architecture}/{self.method}"

    @property
    def name(self) -> str:
        return f"{self.cell}/seed{self.seed}"

    def numbers(self) -> dict[str, Any]:
        """All that can change the numbers. Not names of datasets and profiles: their content counts.

        ``precision`` and ``compile`` are what was asked for; ``auto`` is one key whatever the hardware makes of it,
        so that a grid has the same keys everywhere. What it came to is in the run's environment.
        """
        settings = self.settings.model_dump(mode="json", exclude=NOT_IN_KEY)
        settings = {
            name: value
            for name, value in settings.items()
            if name not in DEFAULTS_OMITTED_FROM_KEY or DEFAULTS_OMITTED_FROM_KEY[name] != value
        }
        # Not there at all without a validation split or a teacher: the keys are those from before there were any.
        validation = {"validation": self.validation.model_dump()} if self.validation else {}
        teacher = {"teacher": self.teacher.run_key} if self.teacher else {}
        return (
            settings
            | validation
            | teacher
            | {
                "architecture": self.architecture,
                "method": self.method,
                "parameters": self.parameters,
                "seed": self.seed,
                "data_digest": self.data_digest,
                "numerics_version": self.numerics_version,
            }
        )

    @property
    def run_key(self) -> str:
        return _digest(self.numbers())

    @property
    def cell_key(self) -> str:
        """The key of all seeds of the cell together. With the dataset's name: two recipes may share runs, not a row."""
        shared = {name: value for name, value in self.numbers().items() if name != "seed"}
        return _digest(shared | {"dataset": self.dataset})

    def flat(self) -> dict[str, Any]:
        """Every setting by a dotted name, as tracked."""
        return _flattened({"dataset": self.dataset, "profile": self.profile} | self.numbers())


def make_spec(
    name: str,
    dataset: Dataset,
    profile: str,
    settings: Settings,
    architecture: str,
    method: str,
    seed: int,
    *,
    overridden: bool = False,
    validation: Validation | None = None,
) -> RunSpec:
    """The run of recipe ``name`` on its prepared dataset, with its teacher's. UserError for an impossible method."""
    built = build_method(method, settings.parameters_of(method))
    teacher = None
    if built.needs_teacher:
        by = settings.teacher
        trained = settings.trained(by.architecture)
        teacher = make_spec(
            name, dataset, profile, settings, trained, by.method, by.seed, overridden=overridden, validation=validation
        )
    return RunSpec(
        dataset=name,
        profile=profile,
        architecture=architecture,
        method=method,
        parameters=built.parameters(),
        seed=seed,
        settings=settings,
        data_digest=dataset.digest,
        data_complete=dataset.complete,
        data_source=dataset.source,
        comparable_with_paper="no: validation split"
        if validation
        else _comparable(dataset, profile, settings, overridden),
        validation=validation,
        teacher=teacher,
        numerics_version=NUMERICS_VERSION,
    )


def count_images(name: str, dataset: Dataset, settings: Settings) -> tuple[int, int, int]:
    """(classes, training images, test images) of a recipe on its opened dataset.

    Raises UserError, naming the setting, where the two do not go together.
    """
    classes, train, test = _restricted(name, dataset, settings)
    check_compatibility(name, settings, train, test)
    return len(classes), len(train), len(test)


def make_validation(name: str, dataset: Dataset, settings: Settings) -> tuple[Validation, int, int]:
    """The validation split of a recipe, with its numbers of (training, validation) images.

    Raises UserError, naming the setting, where recipe and dataset do not go together.
    """
    whole = _restricted(name, dataset, settings)[1]
    try:
        train, held = hold_out(name, whole, settings.validation_fraction)
    except UserError as error:
        raise UserError(f"'validation_fraction': {error}") from error
    check_compatibility(name, settings, train, held)
    digest = indices_digest(held)
    return Validation(fraction=settings.validation_fraction, indices_digest=digest), len(train), len(held)


def make_splits(spec: RunSpec, dataset: Dataset) -> tuple[tuple[str, ...], Split, Split]:
    """(class names, what the run trains on, what it is evaluated on) of its opened dataset."""
    classes, train, evaluated = _restricted(spec.dataset, dataset, spec.settings)
    if spec.validation:
        train, evaluated = hold_out(spec.dataset, train, spec.validation.fraction)
        if indices_digest(evaluated) != spec.validation.indices_digest:
            raise UserError(f"the validation split of {spec.dataset} is no longer the one planned: tune anew")
    return classes, train, evaluated


def _restricted(name: str, dataset: Dataset, settings: Settings) -> tuple[tuple[str, ...], Split, Split | None]:
    subset = settings.subset
    if subset is None:
        return dataset.classes, dataset.train, dataset.test
    try:
        return restrict(
            name,
            dataset.classes,
            dataset.train,
            dataset.test,
            num_classes=subset.classes,
            images_per_class=subset.images_per_class,
        )
    except UserError as error:
        raise UserError(f"'subset': {error}") from error


def _comparable(dataset: Dataset, profile: str, settings: Settings, overridden: bool) -> str:
    """Whether the paper's number may stand beside a run's: "yes", or "no" and the reason."""
    resize = settings.inputs.test_resize
    if profile != "paper":
        return f"no: profile {profile}"
    if overridden:
        return "no: settings differ from the recipe"
    if not dataset.complete:
        return "no: the dataset is incomplete"
    if resize is not None and dataset.short_side < min(resize, settings.inputs.image_size):
        return f"no: images of {dataset.short_side} px are smaller than the {settings.inputs.image_size} px needed"
    return "yes"


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
