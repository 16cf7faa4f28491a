"""The plan of a grid: its cells and runs, with all settings, before anything is trained."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cskd.data.store import Dataset
from cskd.methods import build_method, method_parts
from cskd.utils.errors import UserError
from experiments.config.grid import ALL, CellName, Grid, grid_names, load_grid
from experiments.config.make_spec import make_spec
from experiments.config.recipe import load_settings
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec
from experiments.config.splits import count_images
from experiments.config.tuned import TunedParameters
from experiments.runs.folder import DONE, FAILED, RunFolder
from experiments.runs.stored_plan import Cell, Plan


@dataclass(frozen=True)
class PlannedRun:
    spec: RunSpec
    folder: RunFolder
    num_classes: int
    train_images: int
    test_images: int

    @property
    def teacher(self) -> RunFolder | None:
        """The folder of the run's teacher, which must be done first; None for a run without a teacher."""
        return RunFolder.of(self.spec.teacher, self.folder.path.parent) if self.spec.teacher else None

    def is_pending(self, retry: bool) -> bool:
        """Return True if the run must be started or resumed. retry: also if it failed."""
        state = self.folder.state()["state"]
        if state == DONE:
            return self.folder.damage() is not None
        return retry or state != FAILED


def experiment_name(grid: str, profile: str, overrides: tuple[str, ...] = (), tuned: bool = False) -> str:
    """Return the name of an experiment, such as table1, table1-mini, table1-tuned or table1-custom-1a2b3c."""
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
    """Return the plan of a grid and its runs on the prepared datasets, ordered by seed.

    A teacher is a cell and a run as well, and precedes its students.

    Args:
        datasets: by name; a dataset of the grid that is not among them is not planned.
        tuned: hyper-parameters that replace the recipe's; None if they were not requested.
    Raises:
        UserError: for settings that are incompatible with their dataset.
    """
    counts = {name: count_images(name, dataset, settings[name]) for name, dataset in datasets.items()}
    runs: dict[str, PlannedRun] = {}
    cells: dict[str, Cell] = {}
    recipes = {name: load_settings(name)[1] for name in datasets}
    full_grid = load_grid(grid_name, methods=[ALL]) if grid_name in grid_names() else None

    def add(spec: RunSpec, row: int, parameters: TunedParameters | None = None) -> None:
        if spec.teacher is not None:
            add(spec.teacher, row)
        runs.setdefault(spec.run_key, PlannedRun(spec, RunFolder.of(spec, runs_dir), *counts[spec.dataset]))
        if spec.cell not in cells:
            cells[spec.cell] = Cell(
                name=spec.cell,
                key=spec.cell_key,
                order=_position(full_grid, spec, row),
                comparable=spec.comparable,
                comparable_reason=spec.comparable_reason,
                tuned=parameters.summary() if parameters else "",
                hyperparameter_source=_hyperparameter_source(spec, recipes[spec.dataset]),
                runs={},
            )
        cell = cells[spec.cell]
        if cell.key != spec.cell_key:
            raise UserError(
                f"{spec.cell} has tuned hyper-parameters in this grid, but those of the recipe as a teacher: "
                "launch its students separately"
            )
        cell.runs[spec.seed] = spec.run_key

    for seed in grid.seeds:
        for row, (name, architecture, method) in enumerate(grid.cells(settings)):
            if name not in datasets:
                continue
            parameters = (tuned or {}).get((name, architecture, method))
            cell_settings = settings[name]
            if parameters is not None:
                cell_settings = cell_settings.with_parameters(method, parameters.parameters)
            spec = make_spec(
                name, datasets[name], profile, cell_settings, architecture, method, seed, overridden=bool(overrides)
            )
            add(spec, row, parameters)
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


def _hyperparameter_source(spec: RunSpec, recipe: Settings) -> str:
    """Return who chose the hyper-parameters: "paper", "ours", or "" for a method without any.

    recipe: the settings of the default profile, without overrides.
    """
    parts = [part for part in method_parts(spec.method) if build_method(part).parameters()]
    if not parts:
        return ""
    published = all(spec.architecture in recipe.from_paper.get(part, []) for part in parts)
    unchanged = build_method(spec.method, recipe.parameters_of(spec.method)).parameters() == spec.parameters
    unchanged = unchanged and not spec.schedule_parameters
    return "paper" if published and unchanged else "ours"


def _position(grid: Grid | None, spec: RunSpec, row: int) -> int:
    """Return a cell's position in tables: the order of the grid's file, then other cells. grid: with all methods."""
    if grid is None:
        return row

    def index(name: str, names: list[str]) -> int:
        return names.index(name) if name in names else len(names) + row

    return 1000 * index(spec.dataset, grid.datasets) + index(spec.method, grid.methods)
