"""Several launches that write one SQLite database at once."""

import pytest
from faults.backend import assert_told_once
from faults.made_up import made_up_runs
from place import Place

FAULT = "SQLite with 4 workers writing"


@pytest.mark.fault(FAULT)
def test_four_writers_at_once_lose_no_point_and_meet_no_lock(tally, tmp_path):
    """Each sends runs of its own into one experiment of one database that none of them finds made."""
    methods = ["cross-entropy", "cs-kd", "label-smoothing", "max-entropy"][: tally.cases(4, 2)]
    seeds, epochs = tally.cases(3, 1), tally.cases(150, 30)
    places = []
    for method in methods:
        place = Place(tmp_path / method)
        made_up_runs(place, method, seeds, epochs)
        place.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
        places.append(place)
    processes = [place.start("experiments sync") for place in places]
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
@pytest.mark.slow_fault
def test_two_grids_of_two_workers_each_are_tracked_whole(tally, tmp_path):
    place = Place(tmp_path)
    assert place.run("experiments data", "digits")[0] == 0
    setting = ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[3]")
    seeds = [("0", "1"), ("2", "3")]
    processes = [
        place.start("experiments grid", "demo", "--methods", "cs-kd", "--seeds", *two, "--workers", "2", *setting)
        for two in seeds
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    with tally:
        assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ended, strict=True)] == [
            (0, "")
        ] * 2
        assert all("All is tracked in MLflow" in output for output, _ in ended)
        assert len(place.folders()) == 4
        assert_told_once(tmp_path / "mlflow.db", place.folders())
