"""Studies of a method with a teacher."""

import shutil
from contextlib import ExitStack

import pytest
import yaml
from studies import write_run

from experiments.runs.folder import DONE, FAILED
from experiments.tuning.storage import load_study, storage_address

TUNE = ("experiments tune", "--dataset", "digits", "--method", "kd")


def test_teacher_is_trained_first_on_the_training_part_of_the_split(call, training, tmp_path):
    command = (*TUNE, "--trials", "2")
    assert "its teacher, digits/densenet41/cs-kd/seed0, is trained first" in call(*command, "--dry-run")[1]
    assert call(*command)[0] == 0
    teacher, *students = (run.spec for run in training.runs)
    assert (teacher.name, len(students)) == ("digits/densenet41/cs-kd/seed0", 2)
    assert all((s.teacher.run_key, s.validation) == (teacher.run_key, teacher.validation) for s in students)
    entry = yaml.safe_load((tmp_path / "tuned" / "digits-kd.yaml").read_text())["demo/resnet10"]
    assert (entry["teacher"], entry["teacher_run_key"]) == (teacher.name, teacher.run_key)
    assert f"teacher {teacher.name}, run {teacher.run_key}" in call("experiments tuned", "--method", "kd")[1]
    training.runs[0].folder.metrics.write_text("{")
    training.runs.clear()
    assert call(*command, "--study", "later", "--trials", "1")[0] == 0
    assert [run.spec.name for run in training.runs] == [teacher.name]  # damaged; its student is done
    shutil.rmtree(training.runs[0].folder.path)
    assert "is trained first" not in call(*command)[1]  # no trial needs it


def test_failed_teacher_starts_no_trial_and_is_retried_on_request(call, training):
    command = (*TUNE, "--trials", "1")
    training.state = lambda run: FAILED
    for _ in range(2):
        status, _, errors = call(*command)
        assert status == 2
        assert errors.startswith("error: teacher digits/densenet41/cs-kd/seed0 failed: a reason (log: ")
        assert errors.endswith("RETRY=1 trains it again\n")
    assert len(training.runs) == 1
    training.state = lambda run: DONE
    assert call(*command, "--retry")[0] == 0
    assert len(training.runs) == 3


@pytest.mark.parametrize("timeout", [False, True])
def test_teacher_of_another_process_is_waited_for_until_the_deadline(call, training, timeout):
    command = (*TUNE, "--trials", "1")
    call(*command)
    teacher = training.runs[0]
    teacher.folder.write_state("running", reason="training", epoch=1, epochs=40)
    with ExitStack() as lease:
        lease.enter_context(teacher.folder.leased())

        def end_other_process():
            write_run(teacher, 50.0)
            lease.close()

        training.on_wait = end_other_process
        options = ("--seeds", "2", "--timeout", "0.0000001") if timeout else ()
        status, output, _ = call(*command, "--study", "other", *options)
    states = [trial.state for trial in load_study(storage_address(), "other")[1]]
    assert (status, states) == ((1, []) if timeout else (0, ["complete"]))
    assert ("the timeout is over" in output) == timeout
    assert f"{teacher.spec.name}: another process trains it: waiting for it" in output


def test_bad_store_trains_no_teacher(call, training, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://place")
    status, _, errors = call(*TUNE)
    assert (status, training.runs) == (2, [])
    assert "MLFLOW_TRACKING_URI=nosuch://place" in errors
