"""Grids on a real Slurm: pre-empted, at the time limit, and with a teacher that fails."""

import os
from unittest import mock

import pytest
from clusters.slurm import Slurm
from faults.disturbed import DEMO, STEP, Disturbed, assert_same_results, assert_uploaded_once, strike
from place import Place, epoch_options

from experiments.launch.backends.slurm import queued_tasks
from experiments.runs.folder import DONE, FAILED, MISSING, RUNNING, RunFolder

ON_SLURM = ("--launcher", "slurm")
CPU = "--gres=none --cpus-per-task=1"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Slurm:
    with Slurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.mark.cluster("Slurm: ten runs as an array, two pre-empted in mid-epoch, one at the time limit")
def test_disturbed_array_ends_with_the_undisturbed_results(slurm, undisturbed, tally, tmp_path):
    place = Disturbed(tmp_path, *DEMO, *ON_SLURM)
    # One run of each of these seeds is slow until it is stopped: two for the pre-emption, one for its time limit.
    slow = [strike(STEP, 7, "SLOW", str(seed)) for seed in (0, 1, 4)]
    with tally:
        status, output = place.end(place.launch(*slow, SLURM=f"{CPU} --time=60", **slurm.environment))
        assert status == 0, output
        slurm.wait_for(lambda: len(place.hits()) == 2)
        preempted = training(place)
        assert len(preempted) == 2
        slurm.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=true")
        slurm.wait_for(lambda: len(place.hits()) == 3)
        (limited,) = (folder for folder in training(place) if folder.spec().seed == 4)
        with mock.patch.dict(os.environ, place.environment | slurm.environment):
            task = queued_tasks()[limited.path]
        # Slurm warns a task up to 90 s before its limit, so this one is warned within a minute.
        slurm.call("scontrol", "update", f"JobId={task.id}", "TimeLimit=2")
        slurm.wait_until_empty()
        assert len(place.hits()) == 3
        stopped = {folder.path for folder in place.folders() if len(folder.starts()) > 1}
        assert stopped == {folder.path for folder in (*preempted, limited)}
        assert_same_results(place, undisturbed)
        assert_uploaded_once(place.database, place.folders(), place.folder / "mlartifacts")


def training(place: Place) -> list[RunFolder]:
    return [folder for folder in place.folders() if folder.state()["state"] == RUNNING]


@pytest.mark.cluster("Slurm: a teacher fails")
def test_students_of_a_failed_teacher_are_cancelled_and_trained_on_request(slurm, tally, tmp_path):
    grid = ("experiments grid", "table4", "--datasets", "digits", "--methods", "kd", "--seeds", "0", "1")
    place = Disturbed(tmp_path, *grid, *epoch_options(3), "--workers", "2", *ON_SLURM)
    environment = {"SLURM": CPU, **slurm.environment}
    place.environment |= environment

    def states() -> list[str]:
        return sorted(folder.state()["state"] for folder in place.folders())

    with tally:
        status, output = place.end(place.launch(strike(STEP, 7, "NAN", "0")))
        assert status == 0, output
        slurm.wait_until_empty()
        assert states() == [FAILED, MISSING, MISSING]
        shown = place.call("experiments status")[1]
        assert "digits/densenet41/cs-kd/seed0: failed: the loss is not finite" in shown
        teacher = "not started: its teacher, digits/densenet41/cs-kd/seed0, has failed"
        assert [f"digits/resnet10/kd/seed{seed}: {teacher}" in shown for seed in (0, 1)] == [True, True]
    with tally:
        status, output, errors = place.call(*place.command)
        assert (status, errors, output.count("not started: its teacher")) == (0, "", 2)
        assert not slurm.call("squeue", "--noheader")
    with tally:
        status, output, errors = place.call(*place.command, "--retry")
        assert (status, errors) == (0, ""), output
        slurm.wait_until_empty()
        assert states() == [DONE] * 3
        assert_uploaded_once(place.database, place.folders())
