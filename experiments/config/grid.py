"""Grids: datasets x architectures x methods x seeds, as YAML files. Each is a table or a figure of the paper."""

from pathlib import Path

from cskd.methods import build_method
from cskd.models import check_architecture
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_mapping
from experiments.config.recipe import load_settings, profile_names, recipe_names
from experiments.config.settings import MAX_COUNT, Settings, StrictModel, validated
from experiments.config.tuned import TunedParameters, find

CellName = tuple[str, str, str]  # dataset, architecture, method

GRIDS = Path(__file__).parent.parent / "grids"
ALL = "all"  # as a method or architecture: all of the paper's table


class FullTable(StrictModel):
    """The paper's table, if the grid is a part of it."""

    architectures: list[str]
    methods: list[str]


class Grid(StrictModel):
    """The cells and seeds of an experiment."""

    title: str
    datasets: list[str]
    architectures: list[str]
    methods: list[str]
    seeds: list[int]
    full_table: FullTable | None = None  # None: the grid is the full table

    def cells(self, settings: dict[str, Settings]) -> list[CellName]:
        """Return the cells with the architectures that are trained, each cell once."""
        cells = [
            (dataset, settings[dataset].resolve_architecture(architecture), method)
            for dataset in self.datasets
            for architecture in self.architectures
            for method in self.methods
        ]
        return list(dict.fromkeys(cells))


def grid_names() -> list[str]:
    return sorted(path.stem for path in GRIDS.glob("*.yaml"))


def load_grid(name: str, **selection: list | None) -> Grid:
    """Return a grid by name. selection: datasets, architectures, methods or seeds that replace the grid's.

    ``methods=["all"]`` selects the methods and architectures of the paper's full table, ``architectures=["all"]`` its
    architectures. Raises UserError for every unknown name.
    """
    path = GRIDS / f"{check_choice('grid', name, grid_names())}.yaml"
    grid = validated(Grid, read_mapping(path), str(path))
    table = grid.full_table or grid
    selection = {kind: names for kind, names in selection.items() if names}
    for kind in ("methods", "architectures"):
        if ALL in selection.get(kind, ()) and len(selection[kind]) > 1:
            raise UserError(f"{kind}: '{ALL}' cannot be combined with other names: {' '.join(selection[kind])}")
    if selection.get("methods") == [ALL]:
        selection = {"architectures": table.architectures} | selection | {"methods": table.methods}
    if selection.get("architectures") == [ALL]:
        selection["architectures"] = table.architectures
    return check_grid(validated(Grid, grid.model_dump() | selection, str(path)))


def check_grid(grid: Grid) -> Grid:
    """Return the grid if all its names and seeds are valid. Raises UserError otherwise."""
    for name in grid.datasets:
        check_choice("dataset", name, recipe_names())
    for name in grid.architectures:
        check_architecture(name)
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


def load_grid_settings(grid: Grid, profile: str | None, overrides: tuple[str, ...]) -> tuple[str, dict[str, Settings]]:
    """Return (profile, settings by dataset). Raises UserError if the profiles differ, or datasets lack it."""
    lacking = [name for name in grid.datasets if profile and profile not in profile_names(name)]
    if lacking and len(lacking) < len(grid.datasets):
        others = " ".join(name for name in grid.datasets if name not in lacking)
        raise UserError(f'no profile {profile!r} for {", ".join(lacking)}: give DATASETS="{others}"')
    loaded = {name: load_settings(name, profile, overrides) for name in grid.datasets}
    profiles = {name: profile for name, (profile, _) in loaded.items()}
    if len(set(profiles.values())) > 1:
        listing = ", ".join(f"{name}: {profile}" for name, profile in profiles.items())
        raise UserError(f"the datasets' profiles differ ({listing}): give PROFILE, or launch the datasets separately")
    return next(iter(profiles.values())), {name: settings for name, (_, settings) in loaded.items()}


def check_not_replaced(architectures: tuple[str, ...], profile: str, settings: dict[str, Settings]) -> None:
    """Raise UserError if the profile replaces an architecture that the user named."""
    for dataset, dataset_settings in settings.items():
        for name in architectures:
            trained = dataset_settings.resolve_architecture(name)
            if trained != name:
                raise UserError(
                    f"{dataset}: profile {profile} trains {trained}, not {name}: "
                    f"name {trained}, or change the profile with SET=architectures.{name}={name}"
                )


def load_tuned(grid: Grid, profile: str, settings: dict[str, Settings]) -> dict[CellName, TunedParameters]:
    """Return the tuned hyper-parameters of every cell.

    Raises UserError if a cell has none, unless its method has no hyper-parameters of its own, or if they were tuned
    on a seed of the grid.
    """
    tuned = {}
    for dataset, architecture, method in grid.cells(settings):
        parameters = find(dataset, method, profile, architecture)
        if parameters is None:
            if not build_method(method).parameters():
                continue
            option = "" if profile == "paper" else f" PROFILE={profile}"
            raise UserError(
                f"nothing tuned for {dataset}, {method}, profile {profile}, {architecture}: "
                f"make tune DATASET={dataset} METHOD={method}{option} ARCHITECTURE={architecture}"
            )
        used = sorted(set(parameters.seeds) & set(grid.seeds))
        if used:
            raise UserError(f"{dataset} {method} was tuned on seed {used[0]}: give other SEEDS")
        tuned[dataset, architecture, method] = parameters
    return tuned
