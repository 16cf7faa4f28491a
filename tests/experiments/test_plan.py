"""Plans and run keys: what changes them, and what does not."""

import json

import numpy as np
import pytest

from analysis.paper.published import published_numbers
from cskd.data.store import Dataset
from cskd.utils.errors import UserError
from experiments.config.recipe import load_settings
from experiments.config.spec import make_spec, make_splits
from experiments.config.tuned import TunedParameters
from experiments.runs.plan import Grid, experiment_name, grid_names, load_grid, load_plans, make_plan, settings_of


class Labelled:
    """A split without pixels, as far as a plan looks at it: the classes take turns."""

    def __init__(self, count: int, classes: int = 100, size: tuple[int, int] = (32, 32)):
        self.labels, self.sizes = np.arange(count) % classes, np.full((count, 2), size)

    def __len__(self) -> int:
        return len(self.labels)


def dataset(**changes) -> Dataset:
    """A prepared dataset of 100 classes, as far as a plan looks at it."""
    values = {
        "name": "cifar100",
        "classes": tuple(map(str, range(100))),
        "train": Labelled(10_000),
        "test": Labelled(100),
        "digest": "d" * 64,
        "complete": True,
        "source": "made up",
        "short_side": 32,
    }
    return Dataset(**(values | changes))


def spec(overrides=(), data=None, name="cifar100", **changes):
    profile, settings = load_settings(name, changes.pop("profile", None), overrides)
    arguments = {"architecture": "resnet18", "method": "cs-kd", "seed": 0} | changes
    return make_spec(name, data or dataset(), profile, settings, **arguments)


KEY = "c0f4e5cfb90f7095"  # changes with every setting's name: then all earlier results are other runs
MINI_KEY = "3976603ca6d3b1bb"  # of a run on a subset


@pytest.mark.parametrize(
    "changed",
    [
        lambda: spec(seed=1),
        lambda: spec(method="cross-entropy"),
        lambda: spec(architecture="resnet10"),
        lambda: spec(("schedule.epochs=199",)),
        lambda: spec(("schedule.weight_decay=0.0005",)),
        lambda: spec(("inputs.padding=3",)),
        lambda: spec(("methods.cs-kd.temperature=3",)),
        lambda: spec(("precision=fp32",)),
        lambda: spec(("compile=on",)),
        lambda: spec(("compile=off",)),
        lambda: spec(("pipeline=torchvision",)),
        lambda: spec(data=dataset(digest="e" * 64)),
        lambda: spec(profile="mini"),
    ],
)
def test_everything_that_can_change_the_numbers_changes_the_run_key(changed):
    assert changed().run_key != spec().run_key


def test_nothing_else_changes_it():
    one = spec()
    assert spec(("methods.cross-entropy={}",)).run_key == one.run_key  # another method's settings
    assert spec(("methods.cs-kd.temperature=4.0",)).run_key == one.run_key  # the same value, written otherwise
    assert spec(data=dataset(source="elsewhere", name="copy")).run_key == one.run_key
    assert one.model_copy(update={"dataset": "renamed", "profile": "renamed"}).run_key == one.run_key


def test_the_run_key_is_the_same_on_every_machine():
    assert spec().run_key == KEY
    assert spec(profile="mini").run_key == MINI_KEY


def test_a_spec_comes_back_from_its_file_with_the_same_key():
    one = spec()
    assert type(one).model_validate_json(json.dumps(one.model_dump(mode="json"))).run_key == one.run_key


def test_the_cell_key_joins_the_seeds():
    assert spec(seed=1).cell_key == spec(seed=2).cell_key
    assert spec(seed=1).cell_key != spec(seed=1, method="cross-entropy").cell_key


def test_recipes_may_share_runs_but_not_cells():
    one = spec()
    other = one.model_copy(update={"dataset": "cifar100-again"})
    assert other.run_key == one.run_key
    assert other.cell_key != one.cell_key


def test_only_the_papers_own_setting_is_comparable_with_it():
    assert (spec().comparable, spec().comparable_reason) == (True, "")
    assert not spec(profile="mini").comparable
    assert spec(profile="mini").comparable_reason == "profile mini"
    assert spec(data=dataset(complete=False)).comparable_reason == "the dataset is incomplete"
    small = dataset(name="cub200", short_side=96)
    assert "96 px are smaller than the 224 px" in spec(name="cub200", data=small).comparable_reason
    changed = spec(("schedule.epochs=300",), overridden=True)
    assert changed.comparable_reason == "settings differ from the recipe"


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_is_understood(name):
    grid = load_grid(name)
    settings_of(grid, None, ())


def test_all_methods_are_the_whole_table_of_the_paper():
    part, whole = load_grid("table1"), load_grid("table1", methods=["all"])
    assert (part.methods, part.architectures) == (["cross-entropy", "cs-kd"], ["resnet18"])
    assert len(whole.methods) == 6
    assert whole.architectures == ["resnet18", "densenet121"]
    assert load_grid("table1", methods=["all"], architectures=["resnet10"]).architectures == ["resnet10"]
    assert load_grid("table1", architectures=["all"]).methods == ["cross-entropy", "cs-kd"]
    assert load_grid("table3", methods=["all"]).methods == load_grid("table3").methods


def cells_of_the_paper(table: str) -> set[tuple[str, str]]:
    numbers = published_numbers()
    rows = numbers[numbers.table == table]
    return set(zip(rows.architecture, rows.method, strict=True))


@pytest.mark.parametrize("table", ["1", "2", "3", "4", "6"])
def test_the_grids_have_the_rows_of_the_papers_tables(table):
    grid = load_grid(f"table{table}", methods=["all"])
    assert {(a, m) for a in grid.architectures for m in grid.methods} == cells_of_the_paper(table)


def test_a_teacher_is_a_run_of_the_plan_before_all_its_students(tmp_path):
    plan, runs = plan_of(tmp_path, architectures=["resnet10"], methods=["cross-entropy", "kd", "kd+cs-kd"])
    names = [run.spec.name for run in runs]
    teacher = "cifar100/densenet41/cs-kd/seed0"
    assert names.count(teacher) == 1
    students = [run for run in runs if run.spec.teacher]
    assert len(students) == 4
    assert all(run.spec.teacher.name == teacher for run in students)
    assert names.index(teacher) < min(names.index(run.spec.name) for run in students)
    cells = {cell.name: cell for cell in plan.cells}
    assert cells["cifar100/densenet41/cs-kd"].runs == {0: runs[names.index(teacher)].spec.run_key}
    assert list(cells["cifar100/resnet10/kd"].runs) == [0, 1]


def test_the_teacher_of_table_4_is_table_1s_run(tmp_path):
    _, of_table1 = plan_of(tmp_path, architectures=["densenet121"], methods=["cs-kd"])
    _, of_table4 = plan_of(tmp_path, architectures=["resnet10"], methods=["kd"])
    assert of_table4[0].spec.run_key == of_table1[0].spec.run_key


def test_hyper_parameters_that_are_changed_are_no_longer_the_papers(tmp_path):
    for overrides, whose in (
        ((), "paper"),
        (("methods.kd.lambda_kd=2",), "paper"),
        (("methods={cs-kd: {temperature: 1}}",), "ours"),
    ):
        grid = load_grid("table1", datasets=["cifar100"], methods=["cs-kd"])
        profile, settings = settings_of(grid, None, overrides)
        plan, _ = make_plan("table1", grid, profile, settings, {"cifar100": dataset()}, tmp_path, overrides=overrides)
        assert [cell.hyperparameter_source for cell in plan.cells] == [whose]


def test_a_tuned_row_that_is_also_an_untuned_teacher_is_refused(tmp_path):
    found = TunedParameters(
        dataset="cifar100", method="cs-kd", profile="mini", architecture="densenet41",
        parameters={"temperature": 2.0}, objective="error", value=1.0, recipe_parameters={}, recipe_value=None,
        study="s", trial=0, trials=1, seeds=[1000], split_digest="", data_digest="", git_commit="", git_dirty=False,
        date="2026-01-01",
    )  # fmt: skip
    tuned = {("cifar100", "densenet41", "cs-kd"): found}
    with pytest.raises(UserError, match="cifar100/densenet41/cs-kd is a tuned row and, untuned, a teacher"):
        plan_of(tmp_path, tuned=tuned, architectures=["densenet121"], methods=["cs-kd", "kd"])


def test_the_key_of_a_taught_run_is_its_teachers_too():
    one, other = spec(method="kd"), spec(("teacher.seed=1",), method="kd")
    assert one.run_key != other.run_key
    assert spec(("teacher.seed=1",)).run_key == spec().run_key  # of no matter to a run without a teacher
    assert spec(("methods.cs-kd.temperature=3",), method="kd").run_key != one.run_key


def plan_of(tmp_path, tuned=None, **changes):
    grid = Grid(title="t", datasets=["cifar100"], architectures=["resnet18"], methods=["cross-entropy", "cs-kd"],
                seeds=[0, 1]).model_copy(update=changes)  # fmt: skip
    profile, settings = settings_of(grid, "mini", ())
    return make_plan("table1", grid, profile, settings, {"cifar100": dataset()}, tmp_path, tuned=tuned)


def test_a_plan_goes_seed_by_seed_and_pairs_complete_early(tmp_path):
    plan, runs = plan_of(tmp_path)
    assert [run.spec.name for run in runs] == [
        "cifar100/resnet10/cross-entropy/seed0",
        "cifar100/resnet10/cs-kd/seed0",
        "cifar100/resnet10/cross-entropy/seed1",
        "cifar100/resnet10/cs-kd/seed1",
    ]
    assert plan.experiment == "table1-mini"
    assert [cell.name for cell in plan.cells] == ["cifar100/resnet10/cross-entropy", "cifar100/resnet10/cs-kd"]
    assert runs[0].folder.path == tmp_path / runs[0].spec.run_key


def test_a_plan_counts_what_a_subset_of_all_classes_leaves(tmp_path):
    grid = Grid(title="t", datasets=["cifar100"], architectures=["resnet18"], methods=["cs-kd"], seeds=[0])
    few = dataset(train=Labelled(250))  # three images of the first fifty classes, two of the others
    for most, left in ((1, 100), (3, 250), (9, 250)):
        overrides = (f"subset={{images_per_class: {most}}}",)
        profile, settings = settings_of(grid, None, overrides)
        _, (run,) = make_plan("table1", grid, profile, settings, {"cifar100": few}, tmp_path, overrides=overrides)
        assert (run.num_classes, run.train_images, run.test_images) == (100, left, 100)
        _, train, test = make_splits(run.spec, few)
        assert (len(train), len(test)) == (left, 100)


def test_architectures_that_a_profile_makes_one_are_one_cell(tmp_path):
    plan, runs = plan_of(tmp_path, architectures=["resnet18", "resnet10"])
    assert len(plan.cells) == 2
    assert len(runs) == 4


def test_a_kept_plan_grows_by_what_is_launched_later(tmp_path):
    for changes in ({}, {"methods": ["cs-kd"], "seeds": [5]}):
        plan_of(tmp_path, **changes)[0].save(tmp_path)
    (plan,) = load_plans(tmp_path)
    assert {cell.name: list(cell.runs) for cell in plan.cells} == {
        "cifar100/resnet10/cross-entropy": [0, 1],
        "cifar100/resnet10/cs-kd": [0, 1, 5],
    }


def test_a_plan_that_was_changed_on_the_disk_is_refused(tmp_path):
    plan_of(tmp_path, seeds=[*range(12)])[0].save(tmp_path)
    (path,) = (tmp_path / "plans").glob("*.json")
    (plan,) = load_plans(tmp_path)
    assert sorted(plan.cells[0].runs) == [*range(12)]
    path.write_text(path.read_text().replace('"11": ', '"13": ', 1))
    with pytest.raises(UserError, match=r"\.json is damaged: remove it and launch its grid again"):
        load_plans(tmp_path)


def test_a_cell_whose_settings_changed_replaces_the_earlier_one(tmp_path):
    plan, _ = plan_of(tmp_path)
    plan.save(tmp_path)
    cell = plan.cells[0].model_copy(update={"key": "another", "runs": {7: "x"}})
    plan.model_copy(update={"cells": [cell]}).save(tmp_path)
    (kept,) = load_plans(tmp_path)
    assert kept.cells[0].runs == {7: "x"}
    assert list(kept.cells[1].runs) == [0, 1]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"datasets": ["cifar10"]}, "unknown dataset 'cifar10': choose from cifar100"),
        ({"methods": ["cskd"]}, "unknown method 'cskd': choose from adacos"),
        ({"methods": ["adacos+mixup"]}, "adacos cannot be combined"),
        ({"architectures": ["vgg"]}, "unknown architecture 'vgg': choose from densenet121, densenet41"),
        ({"seeds": [1, 1]}, "seeds must be given, each once: 1 1"),
        ({"seeds": [0, -1]}, "seeds are from 0 to 1,000,000, not -1"),
    ],
)
def test_unknown_names_fail_before_any_data_is_touched(chosen, message):
    with pytest.raises(UserError, match=message):
        load_grid("table1", **chosen)


def test_an_unknown_grid_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown grid 'table9': choose from demo"):
        load_grid("table9")


def test_datasets_without_a_common_profile_are_refused():
    grid = load_grid("table1", datasets=["cifar100", "digits"])
    with pytest.raises(UserError, match="no profile in common"):
        settings_of(grid, None, ())


def test_the_experiment_says_grid_profile_and_change():
    assert experiment_name("table1", "paper") == "table1"
    assert experiment_name("table1", "mini") == "table1-mini"
    assert experiment_name("demo", "demo") == "demo"
    changed = experiment_name("table1", "paper", ("width=8", "batch_size=4"))
    assert changed.startswith("table1-custom-")
    assert changed == experiment_name("table1", "paper", ("batch_size=4", "width=8"))
    assert changed != experiment_name("table1", "paper", ("width=8",))


def test_a_method_without_settings_in_the_recipe_keeps_its_own_defaults():
    profile, settings = load_settings("cifar100")
    bare = settings.model_copy(update={"methods": {}})
    made = make_spec("cifar100", dataset(), profile, bare, "resnet18", "cs-kd", 0)
    assert made.parameters == {"temperature": 4.0, "lambda_cls": 1.0}
