"""Several launches that write one SQLite database at once."""

import numpy as np
import pytest
from faults.backend import assert_told_once
from place import Place

from cskd.predictions import Predictions, save_predictions
from experiments.plan import Cell, Plan
from experiments.recipe import load_settings
from experiments.run_folder import DONE, RunFolder, write_json
from experiments.spec import RunSpec

FAULT = "SQLite with 4 workers writing"
START = {
    "git_commit": "c" * 40, "git_dirty": False, "machine": "a machine", "device": "cpu", "precision": "fp32",
    "threads": 1, "python": "3.12.1", "packages": {}, "started": 1_700_000_000.0,
}  # fmt: skip
TESTED = ("top1_error", "top5_error", "nll", "brier", "ece")


def made_up_runs(place: Place, method: str, seeds: int, epochs: int) -> None:
    """Finished runs of one cell with long histories, and their plan: as much to send as a day of training leaves."""
    profile, settings = load_settings("digits")
    specs = [
        RunSpec(
            dataset="digits", profile=profile, architecture="resnet10", method=method, parameters={}, seed=seed,
            settings=settings, data_digest="d" * 64, data_complete=True, data_source="made up",
            comparable_with_paper="no: profile demo",
        )
        for seed in range(seeds)
    ]  # fmt: skip
    for spec in specs:
        random = np.random.default_rng(spec.seed)
        folder = RunFolder.of(spec, place.runs)
        folder.create(spec)
        write_json(folder.environment, {"starts": [START]})
        for epoch in range(epochs):
            values = random.uniform(1, 50, 12).tolist()
            metrics = {f"test/{name}": values.pop() for name in TESTED}
            metrics |= {"train/loss": values.pop(), "train/lr": 0.1, "train/class_kl": values.pop()}
            metrics |= {"time/train_seconds": values.pop(), "time/test_seconds": values.pop()}
            folder.add_epoch(epoch, metrics)
        logits = random.normal(size=(30, 10)).astype("f4")
        save_predictions(folder.predictions, Predictions(logits, np.ones((30, 4), "f4"), np.arange(30) % 10))
        folder.weights.write_bytes(b"weights")
        folder.write_state(DONE, epoch=epochs, epochs=epochs)
    cell = Cell(
        name=specs[0].cell,
        key=specs[0].cell_key,
        order=0,
        comparable_with_paper=specs[0].comparable_with_paper,
        runs={spec.seed: spec.run_key for spec in specs},
    )
    Plan(experiment="demo", grid="demo", title="A title", profile="demo", cells=[cell]).save(place.runs)


@pytest.mark.fault(FAULT)
def test_four_writers_at_once_lose_no_point_and_meet_no_lock(tally, tmp_path):
    """Each sends runs of its own into one experiment of one database that none of them finds made."""
    methods = ["cross-entropy", "cs-kd", "label-smoothing", "max-entropy"]
    seeds, epochs = tally.cases(3, 1), tally.cases(150, 30)
    places = []
    for method in methods:
        place = Place(tmp_path / method)
        made_up_runs(place, method, seeds, epochs)
        place.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
        places.append(place)
    processes = [place.start("experiments.sync") for place in places]
    ended = [process.communicate(timeout=300) for process in processes]
    lost = []
    for place, process, (output, errors) in zip(places, processes, ended, strict=True):
        try:
            with tally:
                assert (process.returncode, errors) == (0, "")
                assert f"demo: {seeds} runs are tracked" in output
                assert_told_once(tmp_path / "mlflow.db", place.folders())
        except AssertionError as error:
            lost.append(f"{place.folder.name}: {error}")
    assert not lost, "\n\n".join(lost)


@pytest.mark.fault(FAULT)
def test_two_grids_of_two_workers_each_are_tracked_whole(tally, tmp_path):
    """One grid of two workers in a short selection."""
    count = tally.cases(2, 1)
    place = Place(tmp_path)
    assert place.run("experiments.data", "digits")[0] == 0
    setting = ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[3]")
    seeds = [("0", "1"), ("2", "3")][:count]
    processes = [
        place.start("experiments.grid", "demo", "--methods", "cs-kd", "--seeds", *two, "--workers", "2", *setting)
        for two in seeds
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    with tally:
        assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ended, strict=True)] == [
            (0, "")
        ] * count
        assert all("All is tracked in MLflow" in output for output, _ in ended)
        assert len(place.folders()) == 2 * count
        assert_told_once(tmp_path / "mlflow.db", place.folders())
