"""Damaged and edited files of runs: damage is noticed and the run trained again; edited specs are not uploaded."""

import json
import random
import shutil
from pathlib import Path

import pytest
from builders import empty_store
from faults.disturbed import Disturbed, strike
from place import Place, make_once
from run_folders import make_grid, tracked

from cskd import NUMERICS_VERSION
from cskd.utils.errors import UserError
from experiments.runs.folder import INTERRUPTED, RunFolder
from experiments.runs.stored_plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "a run's files truncated or bit-flipped"
FINISHED = ("predictions.npz", "weights.pt", "metrics.jsonl", "environment.json", "summary.json", "spec.json")
UNFINISHED = ("checkpoint.pt", "previous.pt", "metrics.jsonl", "state.json", "environment.json", "spec.json")


def damage(file: Path, draw: random.Random) -> None:
    """Flip one bit or cut off the end, possibly all."""
    content = bytearray(file.read_bytes())
    at = draw.randrange(len(content))
    if draw.random() < 0.5:
        del content[at:]
    else:
        content[at] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def copy_of(folder: RunFolder, runs: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(folder.path, runs / folder.path.name)))


@pytest.mark.fault(FAULT)
def test_damage_of_a_finished_run_is_noticed(demo_grid, tally, tmp_path):
    original = demo_grid.folders()[0]
    folder = copy_of(original, tmp_path)
    assert folder.damage() is None
    unnoticed = []
    for case in range(tally.cases(188, 30)):
        file = folder.path / FINISHED[case % len(FINISHED)]
        damage(file, random.Random(case))
        if folder.damage() != f"{file.name} is damaged":
            unnoticed.append((case, file.name))
        shutil.copy(original.path / file.name, file)
    tally.tried += case + 1
    tally.survived += case + 1 - len(unnoticed)
    assert not unnoticed
    assert folder.damage() is None


@pytest.fixture(scope="module")
def stopped(demo_grid, tmp_path_factory) -> Place:
    """The cs-kd run of the demo grid, stopped after its last epoch: it has two checkpoints."""

    def train(folder: Path) -> None:
        place = Disturbed(folder, *demo_grid.command, "--methods", "cs-kd")
        status, _ = place.strike(strike("cskd.train.trainer:Trainer.predict_training", 1, "SIGTERM"))
        assert (status, [folder.state()["state"] for folder in place.folders()]) == (1, [INTERRUPTED])

    return Place(make_once(tmp_path_factory, "stopped", train))


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize(
    ("source", "name"), [*(("demo_grid", name) for name in FINISHED), *(("stopped", name) for name in UNFINISHED)]
)
def test_damaged_run_ends_with_the_undisturbed_results(demo_grid, tally, tmp_path, request, source, name):
    place = Disturbed(tmp_path, *demo_grid.command, "--methods", "cs-kd")
    (original,) = (run for run in request.getfixturevalue(source).folders() if run.spec().method == "cs-kd")
    damage(copy_of(original, place.runs).path / name, random.Random(source + name))
    with tally:
        place.finish(demo_grid)


SPEC_CHANGES = {
    "cross-entropy": {"numerics_version": NUMERICS_VERSION + 1},
    "mixup": {"unknown_key": 3},
    "label-smoothing": {"seed": 7},
}


@pytest.mark.fault("a spec of another version of the suite, or an edited one")
def test_runs_with_changed_specs_are_not_uploaded_and_block_no_other(tally, tmp_path):
    place = Place(tmp_path)
    empty_store(tmp_path)
    for method in (*SPEC_CHANGES, "cs-kd"):
        make_grid(place.runs, method, seeds=1, epochs=2)
    for folder in place.folders():
        spec = json.loads(folder.spec_file.read_text())
        if spec["method"] in SPEC_CHANGES:
            folder.spec_file.write_text(json.dumps(spec | SPEC_CHANGES[spec["method"]]))
    with tally:
        with pytest.raises(UserError) as caught:
            sync_plan(place.uri, load_plans(place.runs)[0], place.runs)
        assert any(str(folder.path) in str(caught.value) for folder in place.folders())
        assert "\n" not in str(caught.value)
        (run,) = tracked(place.uri, kind="run")
        assert (run.data.tags["method"], run.info.status) == ("cs-kd", "FINISHED")
