"""Recipes: how a dataset is trained. YAML in, checked settings out; unknown keys fail by name."""

import copy
import re
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from cskd.data.sources.registry import SOURCES
from cskd.methods import build_method, method_parts
from cskd.models import ARCHITECTURES
from cskd.utils import yaml as yaml_files
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError

NAME = re.compile(r"\w[\w.-]*")  # of what becomes a part of file names
RECIPES = Path(__file__).parent.parent / "recipes"
MAX_COUNT = 1_000_000  # of whatever is counted: larger numbers are slips, and some would take all memory
MAX_FLOAT32 = 3e38  # number that a float32 holds
MERGED = "merged"  # the reader of several official datasets as one


class StrictModel(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(StrictModel):
    """Where the images come from."""

    reader: str  # a dataset of the catalogue, image-folder, or merged
    folder: str | None = None  # image-folder only: {train,test}/<class>/*, in DATA_DIR or absolute
    parts: tuple[str, ...] | None = None  # merged only: the datasets of the catalogue that are merged, in their order

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
    """Fewer classes and fewer training images; all test images of the classes that stay."""

    classes: int | None = Field(None, ge=2)  # none: all, and one with fewer training images keeps what it has
    images_per_class: int = Field(ge=1)


class Inputs(StrictModel):
    """From stored images to the network's input."""

    image_size: int = Field(ge=8, le=1024)
    train: Literal["pad-crop", "resized-crop"]
    padding: int = Field(4, ge=0, le=1024)  # pad-crop only
    flip: bool = True  # left and right, at random
    test_resize: int | None = Field(None, ge=8, le=2048)  # the short side before the central crop; none: not resized
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
    """SGD and its schedule. The defaults are the paper's."""

    epochs: int = Field(200, ge=1, le=MAX_COUNT)
    lr: float = Field(0.1, gt=0, le=MAX_FLOAT32, allow_inf_nan=False)
    milestones: tuple[int, ...] = (100, 150)
    factor: float = Field(0.1, gt=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0, le=MAX_FLOAT32, allow_inf_nan=False)

    @field_validator("milestones")
    @classmethod
    def ascending(cls, milestones):
        if list(milestones) != sorted(set(milestones)) or (milestones and milestones[0] < 1):
            raise ValueError("must be ascending epochs, from 1")
        return milestones


class Teacher(StrictModel):
    """The run that teaches, for methods that need a teacher: of the same dataset, profile and settings."""

    architecture: str = "densenet121"  # as a grid names it: a profile's `architectures` hold for it, too
    method: str = "cs-kd"
    seed: int = Field(0, ge=0, le=MAX_COUNT)


class Settings(StrictModel):
    """Everything that is fixed about a dataset's runs but the method and the seed."""

    data: Data
    subset: Subset | None = None
    inputs: Inputs
    architectures: dict[str, str] = {}  # what is trained instead of what the grid names
    width: int = Field(64, ge=1, le=1024)
    batch_size: int = Field(128, ge=2, le=MAX_COUNT)
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Literal["auto", True, False] = "auto"  # the training step, by torch.compile; auto: on a GPU
    pipeline: Literal["batched", "torchvision"] = "batched"  # who augments: ours, or torchvision image by image
    validation_fraction: float = Field(0.1, gt=0, lt=1)  # of the training images, held out while tuning
    methods: dict[str, dict[str, float]] = {}  # hyper-parameters by method; others keep the method's defaults
    from_paper: dict[str, list[str]] = {}  # methods with the paper's hyper-parameters: for which architectures
    teacher: Teacher = Teacher()

    def trained(self, architecture: str) -> str:
        """The architecture that is trained where a grid names this one."""
        return self.architectures.get(architecture, architecture)

    def parameters_of(self, method: str) -> dict[str, float]:
        """The recipe's hyper-parameters of a method; a sum ``a+b`` has those of its parts, and its own over them."""
        parts = method_parts(method)
        of_parts = {f"{part}.{name}": value for part in parts for name, value in self.methods.get(part, {}).items()}
        return (of_parts if len(parts) > 1 else {}) | self.methods.get(method, {})

    def hyperparameter_source(self, method: str, architecture: str) -> str:
        """Whose hyper-parameters these settings say they have: "paper", "ours", or "" for a method that has none."""
        having = [part for part in method_parts(method) if build_method(part).parameters()]
        if not having:
            return ""
        return "paper" if all(architecture in self.from_paper.get(part, []) for part in having) else "ours"

    def with_parameters(self, method: str, parameters: dict[str, float]) -> "Settings":
        """The same with other hyper-parameters of a method; those that are not given stay."""
        own = self.methods.get(method, {}) | parameters
        return self.model_copy(update={"methods": self.methods | {method: own}})


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_settings(name: str, profile: str | None = None, overrides: tuple[str, ...] = ()) -> tuple[str, Settings]:
    """The settings of recipe ``name`` under a profile (None: the recipe's own); returns (profile, settings).

    overrides: ``key.path=value`` texts, the value in YAML, laid over the profile.
    Raises UserError, naming the file and the key, for anything that is not understood.
    """
    path = RECIPES / f"{check_choice('dataset', name, recipe_names())}.yaml"
    raw = read_yaml(path)
    base = raw.pop("profile", "paper")
    profiles = raw.pop("profiles", None) or {}
    if not isinstance(profiles, dict) or not isinstance(base, str):
        raise UserError(f"{path}: 'profiles' must map names to settings, and 'profile' must be a name")
    profile = profile or base
    for one in (profile, *profiles):
        if not isinstance(one, str) or not NAME.fullmatch(one):
            raise UserError(f"{path}: profile {one!r}: a name has letters, digits and - _ . only")
    if profile != base:
        if profile not in profiles:
            raise UserError(f"{name} has no profile {profile!r}: choose from {', '.join([base, *profiles])}")
        raw = merged(raw, profiles[profile] or {})
    where = f"{path} ({profile})"
    for override in overrides:
        raw = merged(raw, parse_override(override))
        where = f"{path} ({profile}, with {', '.join(overrides)})"
    settings = validated(Settings, raw, where)
    try:
        for method in settings.methods:
            build_method(method)
            build_method(method, settings.parameters_of(method))
        for method, architectures in settings.from_paper.items():
            build_method(method)
            for architecture in architectures:
                check_choice("architecture", architecture, ARCHITECTURES)
        _check_teacher(settings.teacher)
        for architecture in (*settings.architectures, *settings.architectures.values()):
            check_choice("architecture", architecture, ARCHITECTURES)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return profile, settings


def _check_teacher(teacher: Teacher) -> None:
    check_choice("architecture", teacher.architecture, ARCHITECTURES)
    method = build_method(teacher.method)
    if method.needs_teacher:
        raise UserError(f"teacher: {teacher.method} needs a teacher itself: choose a method that does not")
    if method.incompatible_logits:
        raise UserError(f"teacher: the logits of {teacher.method} are no others' targets: choose another method")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, or a UserError that names the line."""
    content = yaml_files.read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values")
    return content


def validated(model: type[BaseModel], raw: dict[str, Any], where: str):
    """``raw`` as a checked model, or a UserError of one line with every wrong key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"])) or "settings"
            if problem["type"] == "extra_forbidden":
                problems.append(f"unknown key '{key}' (known: {', '.join(_siblings(model, problem['loc']))})")
            else:
                problems.append(f"'{key}': {problem['msg'].removeprefix('Value error, ')}")
        raise UserError(f"{where}: {'; '.join(problems)}") from error


def _siblings(model: type[BaseModel], location: tuple) -> list[str]:
    """The keys that are known where an unknown one was found."""
    keys = iter(location[:-1])
    for key in keys:
        annotation = model.model_fields[key].annotation
        if get_origin(annotation) is dict:
            next(keys)  # a name of the user's
        parts = [annotation, *getattr(annotation, "__args__", ())]
        model = next(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
    return list(model.model_fields)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings are joined, everything else is replaced."""
    if not isinstance(over, dict):
        raise UserError(f"a profile must hold keys and values, not {over!r}")
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(result.get(key), dict) and isinstance(value, dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def parse_override(text: str) -> dict[str, Any]:
    """``schedule.epochs=10`` as ``{"schedule": {"epochs": 10}}``; what follows a method's name is one key."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(f"SET={text!r} is not understood: write key=value, such as schedule.epochs=10")
    result = yaml_files.parse_yaml(value, f"SET={text!r}: the value")
    # a sum's hyper-parameters have a dot in their names: methods.mixup+cs-kd.mixup.alpha
    for key in reversed(path.split(".", 2 if path.startswith("methods.") else -1)):
        result = {key: result}
    return result
