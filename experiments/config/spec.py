"""Run specs and run keys. A run key is the hash of everything that can change a run's numbers, and of nothing else."""

import hashlib
import json
from typing import Any

from pydantic import Field

from experiments.config.settings import DEFAULTS_OMITTED_FROM_KEY, NOT_IN_KEY, ScheduleSettings, Settings, StrictModel


class Validation(StrictModel):
    """The training images that a tuning run is evaluated on. Its test set stays closed."""

    fraction: float | None  # held out from each class; None: images that the subset leaves out
    indices_digest: str  # SHA-256 of the images' indices


class RunSpec(StrictModel):
    """One run: a cell of a grid with one seed, and all its settings."""

    dataset: str
    profile: str
    architecture: str
    method: str
    parameters: dict[str, float]  # the method's hyper-parameters, with its defaults
    schedule_parameters: dict[str, float] = Field(default_factory=dict)  # the method's own SCHEDULE_PARAMETERS
    seed: int
    settings: Settings
    data_digest: str
    data_complete: bool  # whether it has the official numbers of images
    weights_digest: str = ""  # SHA-256 of the weights that training starts from; "": initialised from the seed
    data_source: str  # the files that were read, and how they were verified
    comparable: bool  # whether the run may be compared with the paper's number
    comparable_reason: str  # why not; "" if comparable
    validation: Validation | None = None
    teacher: "RunSpec | None" = None  # for methods that need one
    numerics_version: int  # of the code that planned the run

    @property
    def eval_split(self) -> str:
        """The split that the run is evaluated on, "test" or "validation". It prefixes the names of the metrics."""
        return "validation" if self.validation else "test"

    @property
    def cell(self) -> str:
        return f"{self.dataset}/{self.architecture}/{self.method}"

    @property
    def name(self) -> str:
        return f"{self.cell}/seed{self.seed}"

    @property
    def schedule(self) -> ScheduleSettings:
        return self.settings.schedule.with_parameters(self.schedule_parameters, self.name)

    def key_fields(self) -> dict[str, Any]:
        """Return everything that can change the run's numbers. Dataset and profile count by content, not by name.

        ``precision`` and ``compile`` are as configured, so that "auto" gives the same key on all hardware. The run's
        environment records what was used.
        """
        settings = _without_defaults(self.settings.model_dump(mode="json", exclude=NOT_IN_KEY))
        validation = {"validation": self.validation.model_dump()} if self.validation else {}
        teacher = {"teacher": self.teacher.run_key} if self.teacher else {}
        weights = {"weights_digest": self.weights_digest} if self.weights_digest else {}
        return (
            settings
            | validation
            | teacher
            | weights
            | {
                "architecture": self.architecture,
                "method": self.method,
                "parameters": self.parameters | self.schedule_parameters,
                "seed": self.seed,
                "data_digest": self.data_digest,
                "numerics_version": self.numerics_version,
            }
        )

    @property
    def run_key(self) -> str:
        return _digest(self.key_fields())

    @property
    def cell_key(self) -> str:
        """The key without the seed. It includes the dataset's name: two recipes may share runs, but not cells."""
        shared = {name: value for name, value in self.key_fields().items() if name != "seed"}
        return _digest(shared | {"dataset": self.dataset})

    def flat(self) -> dict[str, Any]:
        """Return every setting that has an effect by its dotted name, for tracking."""
        flat = _flattened({"dataset": self.dataset, "profile": self.profile} | self.key_fields())
        unused = {f"schedule.{name}" for name in self.schedule.without_effect()}
        return {name: value for name, value in flat.items() if name not in unused}


def _without_defaults(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings without those that have their default in DEFAULTS_OMITTED_FROM_KEY."""
    result = {}
    for name, value in settings.items():
        path = prefix + name
        if path not in DEFAULTS_OMITTED_FROM_KEY or DEFAULTS_OMITTED_FROM_KEY[path] != value:
            result[name] = _without_defaults(value, f"{path}.") if isinstance(value, dict) else value
    return result


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
