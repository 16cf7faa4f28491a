"""The run key: every setting is either one that changes it or one that does not, and nothing else does."""

import functools
import json
import os
import random
import re

import pytest
from arrays import random_split
from faults.odd import keys_of
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from cskd.data.store import Dataset
from experiments.commands import execute
from experiments.config.datasets import open_data
from experiments.config.recipe import ScheduleSettings, Settings, load_settings
from experiments.config.spec import DEFAULTS_OMITTED_FROM_KEY, RunSpec, make_spec

# Another value of every setting that changes what a run computes ...
CHANGES = {
    "subset": "subset={images_per_class: 3}",
    "subset.classes": "subset={classes: 4, images_per_class: 9}",
    "subset.images_per_class": "subset={classes: 5, images_per_class: 8}",
    "inputs": "inputs={padding: 3, flip: true}",
    "inputs.image_size": "inputs.image_size=16",
    "inputs.train": "inputs.train=resized-crop",
    "inputs.padding": "inputs.padding=2",
    "inputs.flip": "inputs.flip=true",
    "inputs.test_resize": "inputs.test_resize=9",
    "inputs.mean": "inputs.mean=[0.5, 0.5, 0.4]",
    "inputs.std": "inputs.std=[0.5, 0.5, 0.4]",
    "width": "width=8",
    "batch_size": "batch_size=49",
    "schedule": "schedule={epochs: 9}",
    "schedule.epochs": "schedule.epochs=41",
    "schedule.lr": "schedule.lr=0.2",
    "schedule.milestones": "schedule.milestones=[21, 30]",
    "schedule.factor": "schedule.factor=0.2",
    "schedule.momentum": "schedule.momentum=0.8",
    "schedule.nesterov": "schedule.nesterov=true",
    "schedule.weight_decay": "schedule.weight_decay=0",
    "precision": "precision=fp32",
    "compile": "compile=on",
    "pipeline": "pipeline=torchvision",
}
# ... and of every one that does not, or only by what it comes to: the images' digest, the method's own
# hyper-parameters, the architecture and the teacher, which are in the key by themselves.
KEEPS = {
    "data": "data={reader: cifar100}",
    "data.reader": "data.reader=cifar100",
    "data.folder": "data={reader: image-folder, folder: elsewhere}",
    "data.parts": "data={reader: merged, parts: [cub200, dogs]}",
    "architectures": "architectures.densenet121=resnet10",
    "validation_fraction": "validation_fraction=0.4",
    "methods": "methods.kd.temperature=2",
    "from_paper": "from_paper.kd=[resnet10]",
    "teacher": "teacher={seed: 3}",
    "teacher.architecture": "teacher.architecture=resnet18",
    "teacher.method": "teacher.method=cross-entropy",
    "teacher.seed": "teacher.seed=1",
}
BASE = {"subset.classes": ("subset={classes: 5, images_per_class: 9}",)}  # what is changed, where not the recipe's own
BASE["subset.images_per_class"] = BASE["subset.classes"]
# Of a run that is taught, the same change: its teacher is another run.
TAUGHT = ["teacher", "teacher.architecture", "teacher.method", "teacher.seed"]
SPLIT = random_split(100, 10)
FROZEN = {"cs-kd": "230147e2891deb5c", "cross-entropy": "bd9a56958a9785f4"}  # digits, resnet10, seed 2


def spec(*overrides: str, method: str = "cs-kd", **changes) -> RunSpec:
    profile, settings = load_settings("digits", None, overrides)
    values = {"source": "made up", "digest": "d", "complete": True} | changes
    data = Dataset(name="digits", classes=tuple("0123456789"), train=SPLIT, test=SPLIT, short_side=8, **values)
    return make_spec("digits", data, profile, settings, "resnet10", method, 0)


def test_every_setting_is_known_to_change_the_key_or_not_to():
    """A new setting fails here until it is in one of the two tables above."""
    assert set(CHANGES) | set(KEEPS) == set(keys_of(Settings))
    assert not set(CHANGES) & set(KEEPS)


@pytest.mark.parametrize("key", CHANGES)
def test_what_changes_the_numbers_changes_the_key(key):
    assert spec(CHANGES[key]).run_key != spec(*BASE.get(key, ())).run_key


@pytest.mark.parametrize("key", KEEPS)
def test_what_does_not_leaves_it(key):
    assert spec(KEEPS[key]).run_key == spec().run_key


@pytest.mark.parametrize("key", TAUGHT)
def test_another_teacher_makes_another_run_of_one_that_is_taught(key):
    assert spec(KEEPS[key], method="kd").run_key != spec(method="kd").run_key


class ScheduleWithKind(ScheduleSettings):
    kind: str = "multistep"


class SettingsWithKind(Settings):
    schedule: ScheduleWithKind


@pytest.mark.parametrize(("kind", "keeps_key"), [("multistep", True), ("cosine", False)])
def test_new_nested_setting_at_its_default_keeps_the_key(monkeypatch, kind, keeps_key):
    monkeypatch.setitem(DEFAULTS_OMITTED_FROM_KEY, "schedule.kind", "multistep")
    raw = spec().settings.model_dump()
    raw["schedule"]["kind"] = kind
    extended = spec().model_copy(update={"settings": SettingsWithKind.model_validate(raw)})
    assert (extended.run_key == spec().run_key) == keeps_key


def test_settings_omitted_from_the_key_stand_at_their_defaults():
    defaults = load_settings("digits")[1].model_dump()
    for name, value in DEFAULTS_OMITTED_FROM_KEY.items():
        *groups, last = name.split(".")
        assert functools.reduce(dict.get, groups, defaults)[last] == value


def test_run_keys_stay_what_they_were(call, tmp_path):
    """The keys of the demo: a change here orphans every run that was trained before."""
    assert call("experiments data", "digits")[0] == 0
    _, settings = load_settings("digits")
    digits = open_data("digits", settings.data, tmp_path / "data")
    keys = {method: make_spec("digits", digits, "demo", settings, "resnet10", method, 2).run_key for method in FROZEN}
    assert keys == FROZEN


def test_no_two_changes_make_the_same_run():
    keys = [spec(change).run_key for change in CHANGES.values()]
    assert len(set(keys)) == len(keys)


def test_every_part_of_a_spec_is_known_to_change_the_key_or_not_to():
    one = spec()
    changes = {
        "architecture": "resnet18", "method": "mixup", "parameters": {"temperature": 2.0, "lambda_cls": 1.0}, "seed": 1,
        "data_digest": "e", "numerics_version": 99, "teacher": spec(method="mixup"),
        "validation": {"fraction": 0.5, "indices_digest": "v"}, "settings": spec("width=8").settings,
    }  # fmt: skip
    keeps = {
        "dataset": "renamed", "profile": "renamed", "data_complete": False, "data_source": "elsewhere",
        "comparable": True, "comparable_reason": "elsewhere",
    }  # fmt: skip
    assert set(changes) | set(keeps) == set(RunSpec.model_fields)
    kept = one.model_dump(mode="json")
    for name, value in (changes | keeps).items():
        dumped = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        other = RunSpec.model_validate(kept | {name: dumped})
        assert (other.run_key != one.run_key) == (name in changes), name


@how(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), method=st.sampled_from(["cs-kd", "kd", "mixup+cs-kd"]))
def test_the_order_of_keys_is_of_no_matter(seed, method):
    draw = random.Random(seed)

    def shuffled(content):
        if not isinstance(content, dict):
            return content
        return {name: shuffled(content[name]) for name in draw.sample(list(content), len(content))}

    one = spec(method=method)
    other = RunSpec.model_validate(json.loads(json.dumps(shuffled(one.model_dump(mode="json")))))
    assert other.run_key == one.run_key
    overrides = ["width=8", "schedule.lr=0.2", "methods.cs-kd.temperature=2", "batch_size=40"]
    assert spec(*draw.sample(overrides, 4)).run_key == spec(*overrides).run_key


def test_neither_are_paths_workers_threads_the_launcher_and_the_machine(call, tmp_path, monkeypatch):
    """Of the real command: the runs that it would have trained, by the names of their folders."""

    def planned(*arguments: str) -> set[str]:
        status, output, errors = call("experiments grid", "demo", "--seeds", "0", *arguments, "--launcher", "print")
        assert (status, errors) == (0, "")
        return set(re.findall(r"/([0-9a-f]{16})'?$", output, re.MULTILINE))

    def no_tracking(plan):
        raise ModuleNotFoundError(name="mlflow")

    monkeypatch.setattr(execute, "_open_tracking", no_tracking)  # it goes without, and this test need not wait for it
    assert call("experiments data", "digits")[0] == 0
    here = planned()
    assert len(here) == 2
    (tmp_path / "data").rename(tmp_path / "other data")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "other data"))
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "other runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "elsewhere", "1", "1", "riscv")))
    monkeypatch.chdir(tmp_path)
    assert planned("--workers", "7", "--retry") == here
