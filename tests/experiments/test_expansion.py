"""A grid's runs are what is crossed in it, and their teachers: each once, in an order that stays."""

from itertools import product
from pathlib import Path

from arrays import random_split
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.data.store import Dataset
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import ARCHITECTURES
from experiments.config.grid import Grid, load_grid_settings
from experiments.runs.plan import Plan, PlannedRun, make_plan

SPLIT = random_split(100, 10)
RUNS = Path("/nowhere")


def some(names, most: int = 4) -> st.SearchStrategy[list]:
    return st.lists(st.sampled_from(list(names)), min_size=1, max_size=most, unique=True)


GRIDS = st.builds(
    Grid,
    title=st.just("t"),
    datasets=st.just(["digits"]),
    architectures=some(ARCHITECTURES),
    methods=some([*METHODS, *PAPER_COMPOSITES]),
    seeds=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
).map(check_grid)
# As the recipe has it, where a small network stands for each large one, and with every network itself.
OVERRIDES = st.sampled_from(
    [(), ("architectures={resnet18: resnet18, densenet121: densenet121}",), ("teacher.seed=3",)]
)
every = settings(max_examples=15, deadline=None, derandomize=True)


def plan_of(grid: Grid, overrides: tuple[str, ...] = ()) -> tuple[Plan, list[PlannedRun]]:
    profile, loaded = load_grid_settings(grid, None, overrides)
    data = Dataset("digits", tuple("0123456789"), SPLIT, SPLIT, "d", True, "made up", 8)
    return make_plan("demo", grid, profile, loaded, {"digits": data}, RUNS, overrides=overrides)


def expected(grid: Grid, overrides: tuple[str, ...]) -> dict[str, set[int]]:
    """The seeds of each cell."""
    (recipe,) = load_grid_settings(grid, None, overrides)[1].values()
    cells: dict[str, set[int]] = {}
    for architecture, method, seed in product(grid.architectures, grid.methods, grid.seeds):
        replaced = recipe.architectures.get(architecture, architecture)
        cells.setdefault(f"digits/{replaced}/{method}", set()).add(seed)
        if build_method(method).needs_teacher:
            teacher = recipe.architectures.get(recipe.teacher.architecture, recipe.teacher.architecture)
            cells.setdefault(f"digits/{teacher}/{recipe.teacher.method}", set()).add(recipe.teacher.seed)
    return cells


@every
@given(grid=GRIDS, overrides=OVERRIDES)
def test_the_cells_are_the_product_and_the_teachers(grid, overrides):
    plan, runs = plan_of(grid, overrides)
    wanted = expected(grid, overrides)
    assert {cell.name: set(cell.runs) for cell in plan.cells} == wanted
    assert len(plan.cells) == len(wanted)
    assert sorted(run.spec.name for run in runs) == sorted(
        f"{cell}/seed{seed}" for cell, seeds in wanted.items() for seed in seeds
    )


@every
@given(grid=GRIDS, overrides=OVERRIDES)
def test_no_run_is_there_twice_and_each_belongs_to_its_cell(grid, overrides):
    plan, runs = plan_of(grid, overrides)
    keys = [run.spec.run_key for run in runs]
    assert len(set(keys)) == len(keys)
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
    cells = {(cell.name, seed): key for cell in plan.cells for seed, key in cell.runs.items()}
    assert {(run.spec.cell, run.spec.seed): run.spec.run_key for run in runs} == cells
    assert all(run.folder.path == RUNS / run.spec.run_key for run in runs)


@every
@given(grid=GRIDS, overrides=OVERRIDES, draw=st.randoms(use_true_random=False))
def test_the_order_stays_seeds_first_and_teachers_before_those_that_they_teach(grid, overrides, draw):
    plan, runs = plan_of(grid, overrides)
    again = plan_of(grid, overrides)
    assert [run.spec.run_key for run in again[1]] == [run.spec.run_key for run in runs]
    assert again[0] == plan
    keys = [run.spec.run_key for run in runs]
    for run in runs:
        assert run.spec.teacher is None or keys.index(run.spec.teacher.run_key) < keys.index(run.spec.run_key)
    teachers = {run.spec.teacher.run_key for run in runs if run.spec.teacher}
    places = [grid.seeds.index(run.spec.seed) for run in runs if run.spec.run_key not in teachers]
    assert places == sorted(places)
    # Named in another order it is the same work.
    mixed = grid.model_copy(
        update={
            name: draw.sample(getattr(grid, name), len(getattr(grid, name)))
            for name in ("architectures", "methods", "seeds")
        }
    )
    assert set(keys) == {run.spec.run_key for run in plan_of(mixed, overrides)[1]}
