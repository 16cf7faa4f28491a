"""The plan of a grid: its cells and runs, resolved, before anything is trained.

A plan is kept as RUNS_DIR/plans/<experiment>.json: it says which run folders make up which cell, so that the
tracking can be rebuilt from the run folders alone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cskd.data.store import Dataset
from cskd.methods import build_method
from cskd.models import ARCHITECTURES
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.files import exclusive
from cskd.utils.integrity import read_json, write_json
from experiments.config.recipe import (
    MAX_COUNT,
    Settings,
    StrictModel,
    load_settings,
    read_yaml,
    recipe_names,
    validated,
)
from experiments.config.spec import RunSpec, count_images, make_spec
from experiments.config.tuned import TunedParameters, find
from experiments.runs.folder import RunFolder

CellName = tuple[str, str, str]  # dataset, architecture, method

GRIDS = Path(__file__).parent.parent / "grids"
ALL = "all"


class FullTable(StrictModel):
    """The whole of a table of the paper, where a grid is a part of it."""

    architectures: list[str]
    methods: list[str]


class Grid(StrictModel):
    """What is crossed with what: one table of the paper."""

    title: str
    datasets: list[str]
    architectures: list[str]
    methods: list[str]
    seeds: list[int]
    whole: FullTable | None = None  # what METHODS=all stands for; None: the grid is all of it


class Cell(StrictModel):
    """One cell of a grid, as tracked: all its seeds, of this and of earlier plans."""

    name: str  # dataset/architecture/method
    key: str
    order: int
    comparable: bool  # whether the paper's number may stand beside its mean
    comparable_reason: str = ""  # why not
    tuned: str = ""  # where tuned hyper-parameters come from; "": they are the recipe's
    hyperparameter_source: str = ""  # whose the recipe's are: "paper", "ours", or "" for none
    runs: dict[int, str]  # seed -> run key


class Plan(StrictModel):
    """One experiment of the tracking."""

    experiment: str
    grid: str
    title: str
    profile: str
    overrides: tuple[str, ...] = ()  # "key=value": settings changed from the recipe
    tuned: bool = False  # whether the cells have tuned hyper-parameters
    cells: list[Cell]

    def save(self, runs_dir: Path) -> None:
        """Keep the plan, together with what the kept one of the same experiment has beside it."""
        path = self.path(self.experiment, runs_dir)
        with exclusive(path.with_suffix(".lock")):
            write_json(path, self._joined(path).model_dump(mode="json"))

    def _joined(self, path: Path) -> "Plan":
        """A cell of the same name and key keeps its earlier seeds; one of another key (its settings have
        changed) is replaced.
        """
        before = {cell.name: cell for cell in load_plan(path).cells} if path.exists() else {}
        cells = []
        for cell in self.cells:
            old = before.pop(cell.name, None)
            runs = old.runs | cell.runs if old is not None and old.key == cell.key else cell.runs
            cells.append(cell.model_copy(update={"runs": dict(sorted(runs.items()))}))
        cells += before.values()
        return self.model_copy(update={"cells": sorted(cells, key=lambda cell: cell.order)})

    @staticmethod
    def path(experiment: str, runs_dir: Path) -> Path:
        return runs_dir / "plans" / f"{experiment}.json"


@dataclass(frozen=True)
class PlannedRun:
    spec: RunSpec
    folder: RunFolder
    num_classes: int
    train_images: int
    test_images: int


def grid_names() -> list[str]:
    return sorted(path.stem for path in GRIDS.glob("*.yaml"))


def load_grid(name: str, **chosen: list | None) -> Grid:
    """The grid of that name, with the datasets, methods, ... that were asked for in place of its own.

    ``methods=["all"]`` asks for the whole table of the paper: its architectures, too, unless some are named.
    Raises UserError for every name that is not known, before any data is touched.
    """
    path = GRIDS / f"{check_choice('grid', name, grid_names())}.yaml"
    raw = read_yaml(path)
    whole = raw.get("whole") or raw
    for kind in ("methods", "architectures"):
        if ALL in (chosen.get(kind) or ()) and len(chosen[kind]) > 1:
            raise UserError(f"{kind}: '{ALL}' stands alone: {' '.join(chosen[kind])}")
    if chosen.get("methods") == [ALL]:
        chosen |= {"methods": whole["methods"], "architectures": chosen.get("architectures") or whole["architectures"]}
    if chosen.get("architectures") == [ALL]:
        chosen |= {"architectures": whole["architectures"]}
    return checked(validated(Grid, raw | {key: value for key, value in chosen.items() if value}, str(path)))


def checked(grid: Grid) -> Grid:
    for name in grid.datasets:
        check_choice("dataset", name, recipe_names())
    for name in grid.architectures:
        check_choice("architecture", name, ARCHITECTURES)
    for name in grid.methods:
        build_method(name)
    for kind in ("datasets", "architectures", "methods", "seeds"):
        values = getattr(grid, kind)
        if not values or len(set(values)) != len(values):
            raise UserError(f"{kind} must be given, each once: {' '.join(map(str, values)) or 'none given'}")
    for seed in grid.seeds:
        if not 0 <= seed <= MAX_COUNT:
            raise UserError(f"seeds are from 0 to {MAX_COUNT:,}, not {seed}")
    return grid


def settings_of(grid: Grid, profile: str | None, overrides: tuple[str, ...]) -> tuple[str, dict[str, Settings]]:
    """(profile, settings by dataset). One profile for all: their numbers stand in one table."""
    loaded = {name: load_settings(name, profile, overrides) for name in grid.datasets}
    profiles = {own for own, _ in loaded.values()}
    if len(profiles) > 1:
        message = ", ".join(f"{name}: {own}" for name, (own, _) in loaded.items())
        raise UserError(f"these datasets have no profile in common ({message}): give PROFILE or launch them apart")
    return profiles.pop(), {name: settings for name, (_, settings) in loaded.items()}


def experiment_name(grid: str, profile: str, overrides: tuple[str, ...] = (), tuned: bool = False) -> str:
    """table1, table1-mini, demo, ...; with tuned values table1-tuned; with changed settings table1-custom-1a2b3c,
    for each change its own.
    """
    name = grid if profile in ("paper", grid) else f"{grid}-{profile}"
    name += "-tuned" if tuned else ""
    if not overrides:
        return name
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()
    return f"{name}-custom-{digest[:6]}"


def make_plan(
    grid_name: str,
    grid: Grid,
    profile: str,
    settings: dict[str, Settings],
    datasets: dict[str, Dataset],
    runs_dir: Path,
    *,
    overrides: tuple[str, ...] = (),
    tuned: dict[CellName, TunedParameters] | None = None,
) -> tuple[Plan, list[PlannedRun]]:
    """Cells and runs over the datasets that are at hand. Runs come seed by seed, so that pairs complete early.

    A run that teaches another is a cell and a run of the plan as well, and stands before all that it teaches.
    tuned: hyper-parameters to use in the place of the recipe's, by cell; None where they are not asked for.
    Raises UserError for settings that do not fit their dataset.
    """
    counts = {name: count_images(name, dataset, settings[name]) for name, dataset in datasets.items()}
    runs: dict[str, PlannedRun] = {}
    cells: dict[str, Cell] = {}

    def add(spec: RunSpec, row: int, found: TunedParameters | None = None) -> None:
        if spec.teacher is not None:
            add(spec.teacher, row)
        runs.setdefault(spec.run_key, PlannedRun(spec, RunFolder.of(spec, runs_dir), *counts[spec.dataset]))
        cell = cells.setdefault(spec.cell, _blank_cell(grid_name, spec, row, found))
        if cell.key != spec.cell_key:
            raise UserError(f"{spec.cell} is a tuned row and, untuned, a teacher of this grid: launch them apart")
        cell.runs[spec.seed] = spec.run_key

    for seed in grid.seeds:
        for row, (name, architecture, method) in enumerate(_cells(grid, settings)):
            if name not in datasets:
                continue
            found = (tuned or {}).get((name, architecture, method))
            own = settings[name].with_parameters(method, found.parameters) if found else settings[name]
            spec = make_spec(name, datasets[name], profile, own, architecture, method, seed, overridden=bool(overrides))
            add(spec, row, found)
    plan = Plan(
        experiment=experiment_name(grid_name, profile, overrides, tuned is not None),
        grid=grid_name,
        title=grid.title,
        profile=profile,
        overrides=overrides,
        tuned=tuned is not None,
        cells=list(cells.values()),
    )
    return plan, list(runs.values())


def _blank_cell(grid_name: str, spec: RunSpec, row: int, found: TunedParameters | None) -> Cell:
    """The cell of a run, without its runs."""
    return Cell(
        name=spec.cell,
        key=spec.cell_key,
        order=_position(grid_name, spec.dataset, spec.method, row),
        comparable=spec.comparable,
        comparable_reason=spec.comparable_reason,
        tuned=found.summary() if found else "",
        hyperparameter_source=_hyperparameter_source(spec),
        runs={},
    )


def _hyperparameter_source(spec: RunSpec) -> str:
    """Whose hyper-parameters a run has: the paper's only if they are as the recipe has them for the paper's profile."""
    _, recipe = load_settings(spec.dataset)
    whose = recipe.hyperparameter_source(spec.method, spec.architecture)
    same = build_method(spec.method, recipe.parameters_of(spec.method)).parameters() == spec.parameters
    return "ours" if whose and not same else whose


def _position(grid_name: str, dataset: str, method: str, row: int) -> int:
    """Where a cell stands in its tables: as in the grid's file, whatever part of it is launched; others after."""
    if grid_name not in grid_names():
        return row
    whole = load_grid(grid_name, methods=[ALL])
    first, second = (
        names.index(name) if name in names else len(names) + row
        for names, name in ((whole.datasets, dataset), (whole.methods, method))
    )
    return 1000 * first + second


def find_tuned(grid: Grid, profile: str, settings: dict[str, Settings]) -> dict[CellName, TunedParameters]:
    """The tuned hyper-parameters of every cell whose method has some.

    Raises UserError where there are none, and for a seed that they were tuned on: it has been seen.
    """
    tuned = {}
    for dataset, architecture, method in _cells(grid, settings):
        if not build_method(method).parameters():
            continue
        found = find(dataset, method, profile, architecture)
        seen = sorted(set(found.seeds) & set(grid.seeds))
        if seen:
            raise UserError(f"{dataset} {method} was tuned on seed {seen[0]}: give other SEEDS")
        tuned[dataset, architecture, method] = found
    return tuned


def _cells(grid: Grid, settings: dict[str, Settings]) -> list[CellName]:
    """(dataset, architecture, method), each once: a profile may put one architecture in the place of all."""
    cells = [
        (dataset, settings[dataset].trained(architecture), method)
        for dataset in grid.datasets
        for architecture in grid.architectures
        for method in grid.methods
    ]
    return list(dict.fromkeys(cells))


def load_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate(read_json(path))
    except (OSError, ValueError) as error:  # Damaged among them
        raise UserError(f"{path} is damaged: remove it and launch its grid again") from error


def load_plans(runs_dir: Path) -> list[Plan]:
    return [load_plan(path) for path in sorted((runs_dir / "plans").glob("*.json"))]
