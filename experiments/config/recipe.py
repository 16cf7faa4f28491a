"""Recipes: the settings of a dataset's runs, as YAML files."""

import copy
import re
from pathlib import Path
from typing import Any

from cskd.methods import build_method
from cskd.models import check_architecture
from cskd.utils.errors import UserError, did_you_mean
from cskd.utils.yaml import parse_yaml, read_mapping
from experiments.config.settings import Settings, Teacher, validated

NAME = re.compile(r"\w[\w.-]*")  # a name that can be part of a file name
RECIPES = Path(__file__).parent.parent / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def profile_names(name: str) -> list[str]:
    """Return the profiles of a recipe, its default first. Raises UserError if there is no such recipe."""
    default, profiles, _ = _read(name)
    return [default, *profiles]


def load_settings(name: str, profile: str | None = None, overrides: tuple[str, ...] = ()) -> tuple[str, Settings]:
    """Return (profile, settings) of a recipe.

    Args:
        profile: None for the recipe's default profile.
        overrides: "key.path=value" strings with YAML values, which override the profile.
    Raises:
        UserError: with the file and the key of an invalid value.
    """
    default, profiles, raw = _read(name)
    profile = profile or default
    if profile != default:
        if profile not in profiles:
            nearest = did_you_mean(profile, [default, *profiles])
            raise UserError(
                f"{name} has no profile {profile!r}: {nearest}choose from {', '.join([default, *profiles])}"
            )
        raw = merged(raw, profiles[profile] or {})
    for override in overrides:
        raw = merged(raw, parse_override(override))
    path = RECIPES / f"{name}.yaml"
    where = f"{path} ({profile}, with {', '.join(overrides)})" if overrides else f"{path} ({profile})"
    settings = validated(Settings, raw, where)
    try:
        _check_names(settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return profile, settings


def _read(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return (default profile, settings of the other profiles, settings of the default profile) of a recipe."""
    path = RECIPES / f"{name}.yaml"
    if name not in (known := recipe_names()):
        message = f"unknown dataset {name!r}: {did_you_mean(name, known)}choose from {', '.join(known)}"
        own = f"for images of your own in DATA_DIR/{name}/{{train,test}}/<class>/, write the recipe {path}"
        raise UserError(f"{message}; {own}, as docs/extending.md shows")
    raw = read_mapping(path)
    default = raw.pop("profile", "paper")
    profiles = raw.pop("profiles", None) or {}
    if not isinstance(profiles, dict) or not isinstance(default, str):
        raise UserError(f"{path}: 'profiles' must map names to settings, and 'profile' must be a name")
    for profile in (default, *profiles):
        if not isinstance(profile, str) or not NAME.fullmatch(profile):
            raise UserError(f"{path}: profile {profile!r}: a name has letters, digits and - _ . only")
    return default, profiles, raw


def _check_names(settings: Settings) -> None:
    """Raise UserError for unknown methods, hyper-parameters and architectures."""
    for method in settings.methods:
        build_method(method)
        build_method(method, settings.parameters_of(method))
        settings.schedule.with_parameters(settings.schedule_parameters_of(method), f"methods.{method}")
    for method in settings.from_paper:
        build_method(method)
    _check_teacher(settings.teacher)
    replaced = (*settings.architectures, *settings.architectures.values())
    for architecture in (*replaced, *(name for names in settings.from_paper.values() for name in names)):
        check_architecture(architecture)


def _check_teacher(teacher: Teacher) -> None:
    check_architecture(teacher.architecture)
    method = build_method(teacher.method)
    if method.needs_teacher:
        raise UserError(f"teacher: {teacher.method} needs a teacher itself: choose a method that does not")
    if method.incompatible_logits:
        raise UserError(
            f"teacher: the logits of {teacher.method} cannot be targets of other methods: choose another method"
        )


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` overridden by ``over``: mappings are merged, all other values are replaced."""
    if not isinstance(over, dict):
        raise UserError(f"a profile must hold keys and values, not {over!r}")
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(result.get(key), dict) and isinstance(value, dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def parse_override(text: str) -> dict[str, Any]:
    """Return ``schedule.epochs=10`` as ``{"schedule": {"epochs": 10}}``."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(f"SET={text!r} is not understood: write key=value, such as schedule.epochs=10")
    result = parse_yaml(value, f"SET={text!r}: the value")
    # the hyper-parameters of a composite have a dot in their names: methods.mixup+cs-kd.mixup.alpha
    for key in reversed(path.split(".", 2 if path.startswith("methods.") else -1)):
        result = {key: result}
    return result
