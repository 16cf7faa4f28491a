"""The options of a study, and its configuration: options, recipe, data and search space."""

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from cskd.data.store import Dataset
from cskd.methods import build_method
from cskd.models import check_architecture
from cskd.utils.cli import check_choice, data_dir, runs_dir
from cskd.utils.errors import UserError
from experiments.config.datasets import expected_data, is_prepared, open_data
from experiments.config.grid import check_not_replaced
from experiments.config.make_spec import make_spec
from experiments.config.recipe import NAME, load_settings, recipe_names
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec, Validation
from experiments.config.splits import make_validation
from experiments.launch.data_progress import prepare_with_progress
from experiments.launch.options import LaunchOptions, check_range
from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun
from experiments.tuning.space import DEFAULT, Point, Space, load_space
from experiments.tuning.trial import OBJECTIVES, parse_objectives

DEFAULT_TRIALS = 30
DEFAULT_ARCHITECTURE = "resnet18"
FIRST_SEED = 1000  # of the seeds for tuning; no grid of the paper's tables uses them
MAX_TRIALS, MAX_SEEDS = 100_000, 1000


@dataclass(frozen=True, kw_only=True)
class StudyOptions(LaunchOptions):
    """The options of ``tune`` and ``ablate``."""

    dataset: str
    method: str
    architecture: str | None = None
    space: str = DEFAULT
    objective: str = "error"
    seeds: int = 1  # of each trial
    name: str | None = None
    ablation: bool = False  # measure all points and write no tuned values
    trials: int | None = None  # of the whole study; None: DEFAULT_TRIALS, or all points of a finite space
    sampler: str = "gp"  # see study.SAMPLERS
    prune: bool = False
    timeout: float | None = None  # minutes after which no trial starts

    def __post_init__(self):
        super().__post_init__()
        check_choice("dataset", self.dataset, recipe_names())
        load_space(self.method, self.space)
        if self.architecture:
            check_architecture(self.architecture)
        if self.trials is not None:
            check_range("TRIALS", self.trials, MAX_TRIALS)
        check_range("TUNE_SEEDS", self.seeds, MAX_SEEDS)
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise UserError(f"TIMEOUT must be positive minutes, not {self.timeout:g}")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise UserError(f"STUDY={self.name}: use letters, digits and - _ . only")
        objectives = parse_objectives(self.objective)
        if self.prune and len(objectives) > 1:
            raise UserError("PRUNE=1 needs a single objective: Optuna prunes by one value")


@dataclass(frozen=True)
class StudyConfig:
    """The configuration that all trials of a study share."""

    options: StudyOptions
    profile: str
    settings: Settings
    space: Space
    data: Dataset
    validations: dict[int, Validation]  # by seed
    train_images: int
    validation_images: int

    @property
    def name(self) -> str:
        """Return the given name, or one such as ``digits-cs-kd-demo`` with the options that are not the defaults."""
        options = self.options
        if options.name:
            return options.name
        parts = [options.dataset, options.method, self.profile]
        if self.architecture != self.settings.resolve_architecture(DEFAULT_ARCHITECTURE):
            parts.append(self.architecture)
        if options.ablation:
            parts.append("ablation")
        elif options.space != DEFAULT:
            parts.append(f"{options.space}-space")
        if options.objective != "error":
            parts.append("-".join(self.objectives))
        if options.seeds > 1:
            parts.append(f"{options.seeds}-seeds")
        if self.settings.validate_on == "unused":
            parts.append("unused")
        return "-".join(parts)

    @property
    def architecture(self) -> str:
        return self.settings.resolve_architecture(self.options.architecture or DEFAULT_ARCHITECTURE)

    @property
    def objectives(self) -> tuple[str, ...]:
        return parse_objectives(self.options.objective)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.validations)

    def runs(self, point: Point) -> list[PlannedRun]:
        """Return a trial's runs, one per seed."""
        return [self._planned(self._spec(point, seed)) for seed in self.seeds]

    def teacher(self) -> PlannedRun | None:
        """Return the teacher's run. It does not train on the validation images, which evaluate its students."""
        spec = self._spec({}, FIRST_SEED).teacher
        return self._planned(spec) if spec else None

    def recipe_point(self) -> Point:
        """Return the recipe's values of the searched hyper-parameters."""
        spec = self._spec({}, FIRST_SEED)
        values = spec.parameters | spec.schedule.parameters()
        return {name: values[name] for name in self.space.parameters}

    def first_points(self) -> list[Point]:
        """Return the points to try before the sampler's: the recipe's if the space has it, and the space's start."""
        recipe = self.recipe_point()
        return [recipe] * (recipe in self.space) + [dict(point) for point in self.space.start]

    def identity(self) -> dict[str, Any]:
        """Return the settings that must be equal for trials to be comparable, by the names that the user sees."""
        settings = self._spec({}, FIRST_SEED).key_fields()
        for name in ("seed", "data_digest", "method", "architecture"):
            del settings[name]
        fixed = {name: value for name, value in settings.pop("parameters").items() if name not in self.space.parameters}
        return {
            "purpose": "ablation" if self.options.ablation else "tuning",
            "space": self.space.model_dump(mode="json", include={"parameters"}),
            "objective": list(self.objectives),
            "dataset": self.options.dataset,
            "data": self.data.digest,
            "method": self.options.method,
            "fixed hyper-parameters": fixed,
            "architecture": self.architecture,
            "seeds": list(self.seeds),
            "settings": settings,
        }

    def _spec(self, point: Point, seed: int) -> RunSpec:
        dataset, method, validation = self.options.dataset, self.options.method, self.validations[seed]
        settings = self.settings.with_parameters(method, point)
        return make_spec(
            dataset, self.data, self.profile, settings, self.architecture, method, seed, validation=validation
        )

    def _planned(self, spec: RunSpec) -> PlannedRun:
        classes = (self.settings.subset and self.settings.subset.classes) or len(self.data.classes)
        return PlannedRun(spec, RunFolder.of(spec, runs_dir()), classes, self.train_images, self.validation_images)


def make_study_config(options: StudyOptions, console: Console) -> StudyConfig:
    """Return the configuration of a study. All names are checked before the dataset is prepared and opened.

    A dry run uses the official numbers of a dataset that is not prepared, and raises UserError if there are none.
    """
    name = options.dataset
    space = load_space(options.method, options.space)
    profile, settings = load_settings(name, options.profile, options.overrides)
    if options.prune and not settings.schedule.milestones:
        raise UserError("PRUNE=1 prunes after the first of schedule.milestones, and there is none: leave out PRUNE")
    check_not_replaced((options.architecture,) if options.architecture else (), profile, {name: settings})
    prepared = is_prepared(name, settings.data, data_dir())
    if not prepared and not options.dry_run:
        prepare_with_progress(name, settings.data, data_dir(), console)
        prepared = True
    open_prepared = partial(open_data, test=False)
    data = (open_prepared if prepared else expected_data)(name, settings.data, data_dir())
    if data is None:
        raise UserError(f"{name} is not prepared, so there is no budget: make data DATASET={name}")
    _check_enough_classes(options, settings, data)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    draws = bool(settings.subset) and settings.subset.draw == "seed"
    if draws and len(seeds) > 1 and build_method(options.method).needs_teacher:
        raise UserError(f"TUNE_SEEDS={len(seeds)}: subset.draw=seed needs a teacher for each seed: use TUNE_SEEDS=1")
    splits = [make_validation(name, data, settings, seed) for seed in (seeds if draws else seeds[:1])]
    validations = dict(zip(seeds, itertools.cycle(split for split, _, _ in splits), strict=False))
    _, train_images, validation_images = splits[0]
    return StudyConfig(options, profile, settings, space, data, validations, train_images, validation_images)


def _check_enough_classes(options: StudyOptions, settings: Settings, data: Dataset) -> None:
    """Raise UserError for an objective that is the same for every network with so few classes."""
    classes = (settings.subset and settings.subset.classes) or len(data.classes)
    for objective in parse_objectives(options.objective):
        if classes < OBJECTIVES[objective].min_classes:
            raise UserError(
                f"OBJECTIVE={objective} needs {OBJECTIVES[objective].min_classes} classes, and {options.dataset} has "
                f"{classes}: give another objective"
            )
