"""Files of runs that are truncated or have a flipped bit: the damage is noticed, and the run trained again."""

import random
import shutil
from pathlib import Path

import pytest
from faults.disturbed import Disturbed, strike
from place import Place

from experiments.runs.folder import INTERRUPTED, RunFolder

FAULT = "a run's files truncated or bit-flipped"
FINISHED = ("predictions.npz", "weights.pt", "metrics.jsonl", "environment.json", "summary.json", "spec.json")
UNFINISHED = ("checkpoint.pt", "previous.pt", "metrics.jsonl", "state.json", "environment.json", "spec.json")


def damage(file: Path, draw: random.Random) -> None:
    """Flip one bit or cut off the end, possibly all."""
    content = file.read_bytes()
    at = draw.randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    file.write_bytes(content[:at] if draw.random() < 0.5 else flipped)


@pytest.mark.fault(FAULT)
def test_damage_of_a_finished_run_is_noticed(demo_grid, tally, tmp_path):
    original = demo_grid.folders()[0]
    folder = RunFolder(Path(shutil.copytree(original.path, tmp_path / original.path.name)))
    assert folder.damage() is None
    lost = []
    for case in range(tally.cases(188, 30)):
        file = folder.path / FINISHED[case % len(FINISHED)]
        damage(file, random.Random(case))
        try:
            with tally:
                assert folder.damage() == f"{file.name} is damaged"
        except AssertionError as error:
            lost.append(f"case {case}: {error!r}")
        shutil.copy(original.path / file.name, file)
    assert not lost, "\n".join(lost)
    assert folder.damage() is None


@pytest.fixture(scope="module")
def stopped(demo_grid, tmp_path_factory) -> Place:
    """The cs-kd run of the demo grid, stopped after its last epoch: it has two checkpoints."""
    place = Disturbed(tmp_path_factory.mktemp("stopped"), *demo_grid.command, "--methods", "cs-kd")
    status, _ = place.strike(strike("cskd.train.trainer:Trainer.predict_training", 1, "SIGTERM"))
    assert status == 1
    assert [folder.state()["state"] for folder in place.folders()] == [INTERRUPTED]
    return place


# Each file in turn, of the finished run and of the stopped one; make test tries the first.
CASES = [
    pytest.param(case, source, name, marks=[pytest.mark.slow_fault] if case else [])
    for case, (source, name) in enumerate(
        [("demo_grid", name) for name in FINISHED] + [("stopped", name) for name in UNFINISHED]
    )
]


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize(("case", "source", "name"), CASES)
def test_damaged_run_ends_with_the_undisturbed_results(demo_grid, tally, tmp_path, request, case, source, name):
    source = request.getfixturevalue(source)
    place = Disturbed(tmp_path, *demo_grid.command, "--methods", "cs-kd")
    place.environment["DATA_DIR"] = demo_grid.environment["DATA_DIR"]
    (original,) = (folder for folder in source.folders() if folder.spec().method == "cs-kd")
    folder = RunFolder(Path(shutil.copytree(original.path, place.runs / original.path.name)))
    damage(folder.path / name, random.Random(case))
    with tally:
        place.finish(demo_grid, runs=1)
