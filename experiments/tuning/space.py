"""Search spaces: YAML beside the recipes, one file a method, each holding spaces by name."""

import itertools
from pathlib import Path

import numpy as np
from pydantic import model_validator

from cskd.methods import build_method
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from experiments.config.recipe import StrictModel, read_yaml, validated

SPACES = Path(__file__).parent.parent / "spaces"
DEFAULT = "default"
PAPER = "paper"  # the grid of temperature and lambda_cls that the paper chose from

Point = dict[str, float]


class Axis(StrictModel):
    """The values that one hyper-parameter may take: a range, or some choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def one_of_both(self):
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices, or low and high")
            if not self.choices or len(set(self.choices)) != len(self.choices):
                raise ValueError("choices must be given, each once")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be positive on a log scale")
        return self

    def holds(self, value: float) -> bool:
        return value in self.choices if self.choices else self.low <= value <= self.high

    def ends(self) -> tuple[float, ...]:
        return self.choices or (self.low, self.high)

    def spread(self, count: int) -> tuple[float, ...]:
        """``count`` values from end to end, equidistant on the axis' own scale; choices are all of them."""
        if self.choices:
            return self.choices
        if count == 1:
            return (float(np.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2),)
        scale = np.geomspace if self.log else np.linspace
        inner = scale(self.low, self.high, count).tolist()
        return (self.low, *inner[1:-1], self.high)


class Space(StrictModel):
    """What is searched, and what is tried first."""

    parameters: dict[str, Axis]
    start: tuple[Point, ...] = ()

    @model_validator(mode="after")
    def start_is_inside(self):
        if not self.parameters:
            raise ValueError("names no hyper-parameter")
        for point in self.start:
            if set(point) != set(self.parameters):
                raise ValueError(f"start {point} must give {', '.join(self.parameters)}")
            if not self.holds(point):
                raise ValueError(f"start {point} is outside the space")
        return self

    def holds(self, point: Point) -> bool:
        return all(axis.holds(point[name]) for name, axis in self.parameters.items())

    @property
    def is_finite(self) -> bool:
        return all(axis.choices for axis in self.parameters.values())

    def grid(self, points: int | None = None) -> list[Point]:
        """All points of a finite space; else a regular grid of exactly ``points``, as many on each range.

        Raises UserError, with the numbers that would do, for one that is not possible.
        """
        ranges = sum(axis.choices is None for axis in self.parameters.values())
        fixed = int(np.prod([len(axis.choices) for axis in self.parameters.values() if axis.choices], dtype=int))
        side = round((points / fixed) ** (1 / ranges)) if ranges and points else 1
        if ranges and (points is None or side < 1 or fixed * side**ranges != points):
            near = ", ".join(str(fixed * one**ranges) for one in range(max(2, side - 1), max(2, side - 1) + 3))
            raise UserError(f"TRIALS={points} do not make a regular grid over {ranges} ranges: {near}, ... do")
        values = [axis.spread(side) for axis in self.parameters.values()]
        return [dict(zip(self.parameters, map(float, point), strict=True)) for point in itertools.product(*values)]


def load_space(method: str, name: str = DEFAULT) -> Space:
    """The space of that name for a method. Raises UserError, naming file and key, for what is not understood."""
    has = build_method(method).parameters()
    if not has:
        raise UserError(f"method {method} has no hyper-parameters: there is nothing to tune")
    path = SPACES / f"{method}.yaml"
    if not path.exists():
        raise UserError(f"method {method} has no search space yet: write {path}, beside that of cs-kd")
    raw = read_yaml(path)
    space = validated(Space, raw[check_choice("search space", name, raw)], f"{path} ({name})")
    for parameter in space.parameters:
        if parameter not in has:
            raise UserError(f"{path} ({name}): {method} has no hyper-parameter {parameter!r}: it has {', '.join(has)}")
    for corner in itertools.product(*(axis.ends() for axis in space.parameters.values())):
        try:
            build_method(method, dict(zip(space.parameters, corner, strict=True)))
        except UserError as error:
            raise UserError(f"{path} ({name}): {error}") from error
    return space


def ablatable(method: str) -> str:
    """``method``, if the paper's grid is one of its spaces; else a UserError that lists the methods of which it is."""
    build_method(method)
    having = sorted(path.stem for path in SPACES.glob("*.yaml") if PAPER in read_yaml(path))
    if method not in having:
        raise UserError(
            f"method {method} has no space '{PAPER}' of T and lambda_cls: choose from {', '.join(having)}, "
            f"or write it into {SPACES / method}.yaml"
        )
    return method
