"""What a study is about, resolved from what a user asked for: recipe, data, validation split, space."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cskd.data.store import Dataset
from cskd.methods import build_method
from cskd.models import ARCHITECTURES
from cskd.utils.cli import check_choice, data_dir, runs_dir
from cskd.utils.errors import UserError
from experiments.commands.execute import check_not_replaced
from experiments.config.datasets import is_prepared, open_data
from experiments.config.recipe import NAME, Settings, load_settings, recipe_names
from experiments.config.spec import RunSpec, Validation, make_spec, make_validation
from experiments.launch.data_progress import prepare_with_progress
from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun
from experiments.tuning.objectives import parse_objectives
from experiments.tuning.space import DEFAULT, Point, Space, load_space

MAX_SEEDS = 1000
FIRST_SEED = 1000  # of the seeds that are tuned on: no grid of a paper's table has them
ARCHITECTURE = "resnet18"


@dataclass(frozen=True)
class LaunchOptions:
    """What is to be tuned, or measured in an ablation."""

    dataset: str
    method: str
    architecture: str | None = None
    profile: str | None = None
    space: str = DEFAULT
    objective: str = "error"
    seeds: int = 1
    overrides: tuple[str, ...] = ()
    name: str | None = None
    ablation: bool = False  # its points are measured; none of them becomes the tuned values


@dataclass(frozen=True)
class StudyConfig:
    """Everything that is the same for all trials of a study."""

    dataset: str
    data: Dataset
    method: str
    architecture: str
    profile: str
    settings: Settings
    space: Space
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    validation: Validation
    train_images: int
    validation_images: int
    overrides: tuple[str, ...]
    name: str
    ablation: bool

    def spec(self, point: Point, seed: int) -> RunSpec:
        """The run of one seed with these hyper-parameters; those that are not searched keep the recipe's values."""
        return make_spec(
            self.dataset,
            self.data,
            self.profile,
            self.settings.with_parameters(self.method, point),
            self.architecture,
            self.method,
            seed,
            validation=self.validation,
        )

    def runs(self, point: Point) -> list[PlannedRun]:
        """A trial's runs, one a seed."""
        return [self._planned(self.spec(point, seed)) for seed in self.seeds]

    def teacher(self) -> PlannedRun | None:
        """The run that teaches all trials: on the same part of the training set, so that it has not seen the rest."""
        spec = self.spec({}, self.seeds[0]).teacher
        return self._planned(spec) if spec else None

    def _planned(self, spec: RunSpec) -> PlannedRun:
        classes = (self.settings.subset and self.settings.subset.classes) or len(self.data.classes)
        folder = RunFolder.of(spec, runs_dir())
        return PlannedRun(spec, folder, classes, self.train_images, self.validation_images)

    def recipe_point(self) -> Point:
        """The recipe's own setting of what is searched."""
        parameters = self.spec({}, self.seeds[0]).parameters
        return {name: parameters[name] for name in self.space.parameters}

    def first_points(self) -> list[Point]:
        """What is tried before anything is searched: the recipe's setting and the space's starting points."""
        own = self.recipe_point()
        points = [own] if self.space.holds(own) else []
        return points + [point for point in map(dict, self.space.start) if point != own]

    def identity(self) -> dict[str, Any]:
        """What must be the same for trials to be compared, by names that a user understands."""
        numbers = self.spec({}, self.seeds[0]).key_fields()
        searched = self.space.parameters
        fixed = {name: value for name, value in numbers.pop("parameters").items() if name not in searched}
        for name in ("seed", "data_digest", "method", "architecture"):
            numbers.pop(name)
        # Not there at all when tuning: the identities are those from before there were ablations.
        purpose = {"purpose": "ablation"} if self.ablation else {}
        return purpose | {
            "space": self.space.model_dump(mode="json", include={"parameters"}),
            "objective": list(self.objectives),
            "dataset": self.dataset,
            "data": self.data.digest,
            "method": self.method,
            "fixed hyper-parameters": fixed,
            "architecture": self.architecture,
            "seeds": list(self.seeds),
            "settings": numbers,
        }


def resolve(wish: LaunchOptions, console: Console, *, prepare: bool = True) -> StudyConfig:
    """Check every name before any data is touched, then open the training set.

    prepare: whether it may be prepared if need be; else that it is not is a UserError.
    """
    check_choice("dataset", wish.dataset, recipe_names())
    build_method(wish.method)
    if wish.architecture:
        check_choice("architecture", wish.architecture, ARCHITECTURES)
    space = load_space(wish.method, wish.space)
    objectives = parse_objectives(wish.objective)
    if not 1 <= wish.seeds <= MAX_SEEDS:
        raise UserError(f"TUNE_SEEDS must be from 1 to {MAX_SEEDS}, not {wish.seeds}")
    if wish.name is not None and not NAME.fullmatch(wish.name):
        raise UserError(f"STUDY={wish.name}: a name has letters, digits and - _ . only")
    profile, settings = load_settings(wish.dataset, wish.profile, wish.overrides)
    check_not_replaced((wish.architecture,) if wish.architecture else (), profile, {wish.dataset: settings})
    if not is_prepared(wish.dataset, settings.data, data_dir()):
        if not prepare:
            raise UserError(f"no data yet, and so no budget: make data DATASET={wish.dataset} prepares it")
        prepare_with_progress(wish.dataset, settings.data, data_dir(), console)
    data = open_data(wish.dataset, settings.data, data_dir(), test=False)
    validation, train_images, validation_images = make_validation(wish.dataset, data, settings)
    return StudyConfig(
        dataset=wish.dataset,
        data=data,
        method=wish.method,
        architecture=settings.trained(wish.architecture or ARCHITECTURE),
        profile=profile,
        settings=settings,
        space=space,
        objectives=objectives,
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + wish.seeds)),
        validation=validation,
        train_images=train_images,
        validation_images=validation_images,
        overrides=wish.overrides,
        name=wish.name or _default_name(wish, profile, settings),
        ablation=wish.ablation,
    )


def _default_name(wish: LaunchOptions, profile: str, settings: Settings) -> str:
    """digits-cs-kd-demo; what is not the default is named, so that other wishes are other studies."""
    parts = [wish.dataset, wish.method, profile]
    if wish.architecture and settings.trained(wish.architecture) != settings.trained(ARCHITECTURE):
        parts.append(wish.architecture)
    if wish.ablation:
        parts.append("ablation")
    elif wish.space != DEFAULT:
        parts.append(f"{wish.space}-space")
    if wish.objective != "error":
        parts.append("-".join(parse_objectives(wish.objective)))
    if wish.seeds > 1:
        parts.append(f"{wish.seeds}-seeds")
    return "-".join(parts)
