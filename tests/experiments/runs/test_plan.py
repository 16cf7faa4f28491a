"""Plans: the product of a grid with its teachers, in a stable order; and the stored plan."""

from itertools import product
from pathlib import Path

import pytest
from run_folders import DIGITS, digits_spec

from cskd.data.store import Dataset
from cskd.utils.errors import UserError
from experiments.config.grid import Grid, load_grid_settings
from experiments.config.make_spec import make_spec
from experiments.config.recipe import load_settings
from experiments.config.tuned import TunedParameters
from experiments.runs.plan import PlannedRun, experiment_name, make_plan
from experiments.runs.stored_plan import Plan, load_plans

GRID = Grid(
    title="t", datasets=["digits"], architectures=["resnet18"], methods=["cross-entropy", "cs-kd"], seeds=[0, 1]
)


def plan_grid(runs_dir: Path, overrides: tuple[str, ...] = (), tuned=None, **changes) -> tuple[Plan, list[PlannedRun]]:
    """Return the plan of GRID with some fields changed."""
    grid = GRID.model_copy(update=changes)
    profile, loaded = load_grid_settings(grid, None, overrides)
    return make_plan("demo", grid, profile, loaded, {"digits": DIGITS}, runs_dir, overrides=overrides, tuned=tuned)


@pytest.mark.parametrize("overrides", [(), ("architectures={resnet18: resnet18}",), ("teacher.seed=3",)])
def test_plan_is_the_product_and_the_teachers(overrides):
    selection = {"architectures": ["resnet18", "densenet121"], "methods": ["cs-kd", "kd", "kd+cs-kd"], "seeds": [3, 1]}
    plan, runs = plan_grid(Path("/nowhere"), overrides, **selection)
    recipe = load_settings("digits", None, overrides)[1]
    expected = {
        (f"digits/{recipe.resolve_architecture(architecture)}/{method}", seed)
        for architecture, method, seed in product(*selection.values())
    }
    teacher = recipe.teacher
    expected.add((f"digits/{recipe.resolve_architecture(teacher.architecture)}/{teacher.method}", teacher.seed))
    keys = [run.spec.run_key for run in runs]
    assert len(set(keys)) == len(keys) == len(expected)
    assert {(run.spec.cell, run.spec.seed) for run in runs} == expected
    cells = {(cell.name, seed): key for cell in plan.cells for seed, key in cell.runs.items()}
    assert {(run.spec.cell, run.spec.seed): run.spec.run_key for run in runs} == cells
    for run in runs:
        assert run.spec.teacher is None or keys.index(run.spec.teacher.run_key) < keys.index(run.spec.run_key)
    order = [run.spec.seed for run in runs if run.spec.method != "cs-kd"]
    assert order == sorted(order, key=selection["seeds"].index)
    assert plan_grid(Path("/nowhere"), overrides, **selection)[0] == plan


def test_only_the_papers_recipe_is_comparable_with_the_paper():
    spec = digits_spec()
    assert (spec.comparable, spec.comparable_reason) == (False, "profile demo")
    profile, recipe = load_settings("cub200")

    def reason(overridden=False, **changes):
        data = Dataset(**(vars(DIGITS) | {"short_side": 224} | changes))
        made = make_spec("cub200", data, profile, recipe, "resnet18", "cs-kd", 0, overridden=overridden)
        assert made.comparable == (not made.comparable_reason)
        return made.comparable_reason

    assert reason() == ""
    assert reason(overridden=True) == "settings differ from the recipe"
    assert reason(complete=False) == "the dataset is incomplete"
    assert reason(short_side=96) == "images of 96 px are smaller than the 224 px needed"


@pytest.mark.parametrize(
    ("method", "architecture", "overrides", "source"),
    [
        ("cross-entropy", "resnet18", (), ""),
        ("cs-kd", "resnet18", ("methods.kd.lambda_kd=2",), "paper"),
        ("cs-kd", "resnet18", ("methods.cs-kd.temperature=1",), "ours"),
        ("cs-kd", "densenet121", (), "ours"),
        ("mixup+cs-kd", "resnet18", (), "ours"),
    ],
)
def test_source_of_hyperparameters(method, architecture, overrides, source):
    grid = GRID.model_copy(update={"datasets": ["cub200"], "methods": [method], "architectures": [architecture]})
    profile, loaded = load_grid_settings(grid, None, overrides)
    plan, _ = make_plan("table1", grid, profile, loaded, {"cub200": DIGITS}, Path(), overrides=overrides)
    assert [cell.hyperparameter_source for cell in plan.cells] == [source]


TUNED = TunedParameters(
    dataset="digits", method="cs-kd", profile="demo", architecture="resnet10",
    parameters={"temperature": 2.0}, objective="error", value=1.0, recipe_parameters={}, recipe_value=None,
    study="s", trial=0, trials=1, seeds=[1000], split_digest="", data_digest="", git_commit="", git_dirty=False,
    date="2026-01-01",
)  # fmt: skip


def test_tuned_parameters_replace_the_recipes_unless_the_cell_is_an_untuned_teacher(tmp_path):
    plan, runs = plan_grid(tmp_path, tuned={("digits", "resnet10", "cs-kd"): TUNED})
    assert (plan.tuned, plan.experiment) == (True, "demo-tuned")
    assert [bool(cell.tuned) for cell in plan.cells] == [False, True]
    assert runs[1].spec.parameters == {"temperature": 2.0, "lambda_cls": 1.0}
    tuned = {("digits", "densenet41", "cs-kd"): TUNED}
    with pytest.raises(UserError, match="digits/densenet41/cs-kd has tuned hyper-parameters in this grid, but"):
        plan_grid(tmp_path, tuned=tuned, architectures=["densenet121"], methods=["cs-kd", "kd"])


def test_stored_plan_grows_and_replaces_changed_cells(tmp_path):
    for changes in ({"seeds": [*range(12)]}, {"methods": ["cs-kd"], "seeds": [15]}):
        plan_grid(tmp_path, **changes)[0].save(tmp_path)
    (plan,) = load_plans(tmp_path)
    assert [sorted(cell.runs) for cell in plan.cells] == [[*range(12)], [*range(12), 15]]
    changed = plan.cells[0].model_copy(update={"key": "another", "runs": {7: "x"}})
    plan.model_copy(update={"cells": [changed]}).save(tmp_path)
    assert load_plans(tmp_path)[0].cells[0].runs == {7: "x"}
    (path,) = (tmp_path / "plans").glob("*.json")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=r"\.json is damaged: remove it and launch its grid again"):
        load_plans(tmp_path)


def test_experiment_names_tell_grid_profile_and_overrides():
    assert experiment_name("table1", "paper") == "table1"
    assert experiment_name("table1", "mini", tuned=True) == "table1-mini-tuned"
    assert experiment_name("demo", "demo") == "demo"
    changed = experiment_name("table1", "paper", ("width=8", "batch_size=4"))
    assert changed == experiment_name("table1", "paper", ("batch_size=4", "width=8"))
    assert changed != experiment_name("table1", "paper", ("width=8",))
