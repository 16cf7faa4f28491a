"""The settings of a dataset's runs. Every key and value is validated."""

from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError, did_you_mean

MAX_COUNT = 1_000_000  # a larger number of epochs, images or seeds is a typing error, and some would use all memory
MAX_FLOAT32 = 3e38
MERGED = "merged"  # the reader that joins several official datasets
SCHEDULE_PARAMETERS = ("schedule.lr", "schedule.weight_decay")  # that a method may have beside its own

# These settings are not in a run's key. They only select what is trained, and the selection is in the key; the number
# of threads moves only the last digits of the results, and is recorded.
NOT_IN_KEY = {
    "data",
    "methods",
    "from_paper",
    "architectures",
    "teacher",
    "validation_fraction",
    "validate_on",
    "weights",
    "threads",
}
# A setting with this default is not in the key either. Add each new setting here with its default, a nested one by its
# dotted name, such as "schedule.kind", so that existing keys do not change.
DEFAULTS_OMITTED_FROM_KEY = {
    "compile": "auto",
    "pipeline": "batched",
    "replicas": 1,
    "subset.draw": "fixed",
    "schedule.kind": "multistep",
    "schedule.warmup_epochs": 0,
    "schedule.optimizer": "sgd",
    "schedule.beta2": 0.999,
    "schedule.decay_all": True,
}


class StrictModel(BaseModel):
    """An immutable model that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(StrictModel):
    """The source of the images."""

    reader: str  # an official dataset, image-folder, or merged
    folder: str | None = None  # image-folder only: {train,test}/<class>/*, in DATA_DIR or absolute
    parts: tuple[str, ...] | None = None  # merged only: the official datasets, in order

    @model_validator(mode="after")
    def parts_are_datasets(self):
        if (self.parts is not None) != (self.reader == MERGED):
            raise ValueError(f"'parts' and 'reader: {MERGED}' go together")
        for part in self.parts or ():
            if part not in SOURCES:
                raise ValueError(f"unknown part {part!r}: choose from {', '.join(SOURCES)}")
        if self.parts is not None and (len(self.parts) < 2 or len(set(self.parts)) < len(self.parts)):
            given = ", ".join(self.parts) or "none given"
            raise ValueError(f"'parts' must be two datasets or more, each once: {given}")
        return self


class Subset(StrictModel):
    """Fewer classes and training images, with all test images of these classes."""

    classes: int | None = Field(None, ge=2)  # None: all
    images_per_class: int = Field(ge=1)  # a class with fewer training images keeps them all
    draw: Literal["fixed", "seed"] = "fixed"  # the same training images for all seeds, or others for each seed


class Inputs(StrictModel):
    """How stored images become the input of the network."""

    image_size: int = Field(ge=8, le=1024)
    train: Literal["pad-crop", "resized-crop"]
    padding: int = Field(4, ge=0, le=1024)  # pad-crop only
    flip: bool = True  # left and right, at random
    test_resize: int | None = Field(None, ge=8, le=2048)  # the short side before the central crop; None: not resized
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.485, 0.456, 0.406)
    std: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.229, 0.224, 0.225)

    @field_validator("std")
    @classmethod
    def positive(cls, std):
        if min(std) <= 0:
            raise ValueError("must be positive")
        return std

    @model_validator(mode="after")
    def crop_fits(self):
        if self.test_resize is not None and self.test_resize < self.image_size:
            raise ValueError(f"test_resize {self.test_resize} is smaller than image_size {self.image_size}")
        return self


class ScheduleSettings(StrictModel):
    """The settings of ``cskd.train.schedule.Schedule``. The defaults are the paper's."""

    epochs: int = Field(200, ge=1, le=MAX_COUNT)
    lr: float = Field(0.1, gt=0, le=MAX_FLOAT32, allow_inf_nan=False)
    kind: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (100, 150)
    factor: float = Field(0.1, gt=0, le=1)
    warmup_epochs: int = Field(0, ge=0, le=MAX_COUNT)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0, le=MAX_FLOAT32, allow_inf_nan=False)
    decay_all: bool = True

    @field_validator("milestones")
    @classmethod
    def ascending(cls, milestones):
        if list(milestones) != sorted(set(milestones)) or (milestones and milestones[0] < 1):
            raise ValueError("must be ascending epochs, from 1")
        return milestones

    @model_validator(mode="after")
    def settings_agree(self):
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be fewer than epochs {self.epochs}")
        if self.kind != "multistep" and self.milestones:
            raise ValueError(f"kind: {self.kind} has no milestones: set schedule.milestones=[]")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs optimizer: sgd and a momentum")
        return self

    def without_effect(self) -> set[str]:
        """Return the settings that this optimizer and this kind of schedule do not use."""
        unused = {"nesterov"} if self.optimizer == "adamw" else {"beta2"}
        return unused if self.kind == "multistep" else unused | {"milestones", "factor"}

    def parameters(self) -> dict[str, float]:
        """Return the values of SCHEDULE_PARAMETERS."""
        return {name: getattr(self, name.removeprefix("schedule.")) for name in SCHEDULE_PARAMETERS}

    def with_parameters(self, parameters: dict[str, float], where: str) -> "ScheduleSettings":
        """Return a copy with these values of SCHEDULE_PARAMETERS. Raises UserError, with ``where``, for a bad value."""
        changed = {name.removeprefix("schedule."): value for name, value in parameters.items()}
        return validated(ScheduleSettings, self.model_dump() | changed, where)


class Teacher(StrictModel):
    """The teacher of methods that need one. It is trained on the same dataset with the same settings."""

    architecture: str = "densenet121"  # replaced by `architectures`, as in a grid
    method: str = "cs-kd"
    seed: int = Field(0, ge=0, le=MAX_COUNT)


class Settings(StrictModel):
    """All settings of a dataset's runs, apart from architecture, method and seed."""

    data: Data
    subset: Subset | None = None
    inputs: Inputs
    architectures: dict[str, str] = {}  # architecture in a grid -> architecture that is trained
    weights: str | None = None  # to start from: a file in DATA_DIR, or a named set of a network of torchvision or timm
    width: int = Field(64, ge=1, le=1024)
    batch_size: int = Field(128, ge=2, le=MAX_COUNT)
    replicas: int = Field(1, ge=1, le=1024)  # of the network, each on a GPU of its own and on its part of a batch
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Literal["auto", True, False] = "auto"  # whether to use torch.compile; auto: on a GPU
    threads: int | None = Field(None, ge=1, le=1024)  # CPU threads of a run; None: one for each usable core
    pipeline: Literal["batched", "torchvision"] = "batched"  # batched augmentation, or torchvision's image by image
    validate_on: Literal["held-out", "unused"] = "held-out"  # tuning: training images held out, or not in the subset
    validation_fraction: float = Field(0.1, gt=0, lt=1)  # of the training images that are held out
    methods: dict[str, dict[str, float]] = {}  # hyper-parameters by method; the method has defaults
    from_paper: dict[str, list[str]] = {}  # method -> architectures for which its values are the paper's
    teacher: Teacher = Teacher()

    @model_validator(mode="after")
    def replicas_have_images(self):
        if self.batch_size < 2 * self.replicas:
            raise ValueError(
                f"batch_size {self.batch_size} is too small for replicas {self.replicas}: BatchNorm needs two images "
                "on each"
            )
        return self

    def resolve_architecture(self, architecture: str) -> str:
        """Return the architecture that is trained in place of ``architecture`` in a grid."""
        return self.architectures.get(architecture, architecture)

    def parameters_of(self, method: str) -> dict[str, float]:
        """Return the recipe's hyper-parameters of a method, without SCHEDULE_PARAMETERS.

        A composite ``a+b`` has those of ``a`` and ``b``, overridden by its own entry.
        """
        from cskd.methods import method_parts  # noqa: PLC0415 - imports torch, which 'status' does not need

        parts = method_parts(method)
        own = self._own_parameters(method)
        if len(parts) == 1:
            return own
        return {f"{part}.{name}": value for part in parts for name, value in self._own_parameters(part).items()} | own

    def _own_parameters(self, method: str) -> dict[str, float]:
        entry = self.methods.get(method, {})
        return {name: value for name, value in entry.items() if name not in SCHEDULE_PARAMETERS}

    def schedule_parameters_of(self, method: str) -> dict[str, float]:
        """Return a method's SCHEDULE_PARAMETERS that differ from the recipe's schedule."""
        entry, recipe = self.methods.get(method, {}), self.schedule.parameters()
        return {name: entry[name] for name in SCHEDULE_PARAMETERS if entry.get(name, recipe[name]) != recipe[name]}

    def with_parameters(self, method: str, parameters: dict[str, float]) -> "Settings":
        """Return a copy with these hyper-parameters of a method changed."""
        changed = self.methods.get(method, {}) | parameters
        return self.model_copy(update={"methods": self.methods | {method: changed}})


def validated(model: type[BaseModel], raw: dict[str, Any], where: str):
    """Return ``raw`` as a model. Raises UserError, in one line, with every invalid key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"])) or "settings"
            if problem["type"] == "extra_forbidden":
                known = _siblings(model, problem["loc"])
                nearest = did_you_mean(str(problem["loc"][-1]), known)
                problems.append(f"unknown key '{key}' ({nearest}known: {', '.join(known)})")
            elif problem["type"] == "value_error":  # of our own validators
                problems.append(f"'{key}': {problem['msg'].removeprefix('Value error, ')}")
            else:
                given = f", not {problem['input']!r}" if isinstance(problem["input"], str | int | float) else ""
                problems.append(f"'{key}': {problem['msg']}{given}")
        raise UserError(f"{where}: {'; '.join(problems)}") from error


def _siblings(model: type[BaseModel], location: tuple) -> list[str]:
    """Return the valid keys beside an unknown key."""
    keys = iter(location[:-1])
    for key in keys:
        annotation = model.model_fields[key].annotation
        if get_origin(annotation) is dict:
            next(keys)  # a key of a dict can be any name
        parts = [annotation, *getattr(annotation, "__args__", ())]
        model = next(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
    return list(model.model_fields)
