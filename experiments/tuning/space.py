"""Search spaces: one YAML file per method in experiments/spaces, with named spaces."""

import itertools
import math
from pathlib import Path

import numpy as np
from pydantic import model_validator

from cskd.methods import build_method
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_mapping
from experiments.config.settings import SCHEDULE_PARAMETERS, ScheduleSettings, StrictModel, validated

SPACES = Path(__file__).parent.parent / "spaces"
DEFAULT = "default"
PAPER = "paper"  # the paper's grid of temperature and lambda_cls
EDGE = 0.02  # the part of a range, on its scale, that is next to an end
EQUAL = "equal"  # a method's default space and that of cross-entropy, the learning rate and weight decay

Point = dict[str, float]


class Axis(StrictModel):
    """The values of one hyper-parameter: a range or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def check(self):
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices, or low and high")
            if not self.choices or len(set(self.choices)) != len(self.choices):
                raise ValueError("give at least one choice, and each choice once")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be positive on a log scale")
        return self

    def __contains__(self, value: float) -> bool:
        return value in self.choices if self.choices else self.low <= value <= self.high

    def is_edge(self, value: float) -> bool:
        """Return True if the value is the lowest or highest of three choices or more, or next to an end of a range."""
        if self.choices:
            return len(self.choices) > 2 and value in (min(self.choices), max(self.choices))
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return min(value - low, high - value) <= EDGE * (high - low)

    def ends(self) -> tuple[float, ...]:
        return self.choices or (self.low, self.high)

    def grid(self, count: int) -> tuple[float, ...]:
        """Return ``count`` values from low to high, evenly spaced on the axis's scale, or all choices."""
        if self.choices:
            return self.choices
        if count == 1:
            return (float(np.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2),)
        spaced = np.geomspace if self.log else np.linspace
        inner = spaced(self.low, self.high, count).tolist()[1:-1]
        return (self.low, *inner, self.high)  # exact ends: rounding may place them outside of the axis

    def describe(self) -> str:
        if self.choices:
            return "in {" + ", ".join(f"{value:g}" for value in self.choices) + "}"
        return f"in [{self.low:g}, {self.high:g}]{' (log)' if self.log else ''}"


class Space(StrictModel):
    """The searched hyper-parameters, and the points that are tried first."""

    parameters: dict[str, Axis]
    start: tuple[Point, ...] = ()

    @model_validator(mode="after")
    def check(self):
        if not self.parameters:
            raise ValueError("names no hyper-parameter")
        for point in self.start:
            if set(point) != set(self.parameters):
                raise ValueError(f"start {point} must give {', '.join(self.parameters)}")
            if point not in self:
                raise ValueError(f"start {point} is outside the space")
        return self

    def __contains__(self, point: Point) -> bool:
        return all(point[name] in axis for name, axis in self.parameters.items())

    @property
    def is_finite(self) -> bool:
        return all(axis.choices for axis in self.parameters.values())

    @property
    def is_plane(self) -> bool:
        """True if the space is a finite grid of two hyper-parameters, which a heat map can show."""
        return self.is_finite and len(self.parameters) == 2

    def grid(self, count: int | None = None) -> list[Point]:
        """Return all points of a finite space, else a regular grid of ``count`` points.

        Raises UserError, with counts that are possible, if ``count`` points do not form a regular grid.
        """
        ranges = sum(axis.choices is None for axis in self.parameters.values())
        combinations = int(np.prod([len(axis.choices) for axis in self.parameters.values() if axis.choices], dtype=int))
        side = round((count / combinations) ** (1 / ranges)) if ranges and count else 1
        if ranges and (count is None or side < 1 or combinations * side**ranges != count):
            first = max(2, side - 1)
            possible = ", ".join(str(combinations * length**ranges) for length in range(first, first + 3))
            raise UserError(f"TRIALS={count} is not a regular grid over {ranges} ranges: give {possible}, ...")
        values = [axis.grid(side) for axis in self.parameters.values()]
        return [dict(zip(self.parameters, map(float, point), strict=True)) for point in itertools.product(*values)]


def load_space(method: str, name: str = DEFAULT) -> Space:
    """Load a method's space by name. Raises UserError that names the file and the key."""
    parameters = build_method(method).parameters()
    path = SPACES / f"{method}.yaml"
    if name == EQUAL:
        own = load_space(method).parameters if parameters else {}
        return Space(parameters=own | load_space("cross-entropy").parameters)
    if not path.exists():
        advice = f"write {path}, with cs-kd.yaml as an example" if parameters else f"use SPACE={EQUAL}"
        raise UserError(f"method {method} has no search space: {advice}")
    raw = read_mapping(path)
    if name not in raw:
        known = ", ".join([*raw, EQUAL])
        raise UserError(f"method {method} has no search space {name!r}: choose from {known}, or add it to {path}")
    where = f"{path} ({name})"
    space = validated(Space, raw[name], where)
    for parameter in space.parameters:
        if parameter not in (*parameters, *SCHEDULE_PARAMETERS):
            known = ", ".join((*parameters, *SCHEDULE_PARAMETERS))
            raise UserError(f"{where}: {method} has no hyper-parameter {parameter!r}: choose from {known}")
    for corner in itertools.product(*(axis.ends() for axis in space.parameters.values())):
        point = dict(zip(space.parameters, corner, strict=True))
        schedule = {name: point.pop(name) for name in SCHEDULE_PARAMETERS if name in point}
        ScheduleSettings().with_parameters(schedule, where)
        try:
            build_method(method, point)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return space
