"""A study's teacher comes before the trials, once, and what becomes of it is said."""

import re
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from cskd.utils.errors import UserError
from experiments.config.tuned import load, save
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun
from experiments.tuning.outcome import make_found
from experiments.tuning.setup import LaunchOptions, resolve
from experiments.tuning.teaching import Teaching
from experiments.tuning.trial import COMPLETE, Trial

TRIALS = ["first", "second"]


@dataclass
class Spec:
    run_key: str
    name: str
    teacher: "Spec | None" = None

    def model_dump(self, mode: str) -> dict:
        return {"name": self.name}


@pytest.fixture
def runs(tmp_path) -> tuple[PlannedRun, PlannedRun]:
    """A teacher and a run that it teaches."""
    spec = Spec("t", "digits/densenet41/cs-kd/seed0")
    return tuple(
        PlannedRun(one, RunFolder(tmp_path / one.run_key), 3, 10, 10)
        for one in (spec, Spec("s", "digits/resnet10/kd/seed1000", spec))
    )


def became(teacher: PlannedRun, state: str, **details) -> None:
    teacher.folder.create(teacher.spec)
    teacher.folder.write_state(state, **details)


def test_the_teacher_is_trained_before_the_first_trial(runs):
    teacher, taught = runs
    teaching = Teaching(teacher, taught, retry=False)
    drawn = teaching.before(iter(TRIALS))
    assert next(drawn) is teacher
    assert teaching.is_of(teacher)
    assert not teaching.is_of(taught)
    assert next(drawn) is None  # it is being trained
    became(teacher, DONE)
    teaching.ended()
    assert list(drawn) == TRIALS
    teaching.check_trained()


def test_without_a_teacher_or_with_one_that_is_done_the_trials_begin_at_once(runs):
    teacher, taught = runs
    assert list(Teaching(None, taught, retry=False).before(iter(TRIALS))) == TRIALS
    became(teacher, DONE)
    teaching = Teaching(teacher, taught, retry=False)
    assert teaching.teacher is None  # nothing for a budget to count
    assert list(teaching.before(iter(TRIALS))) == TRIALS


def test_a_teacher_that_fails_lets_no_trial_begin_and_is_tried_again_only_on_request(runs):
    teacher, taught = runs
    teaching = Teaching(teacher, taught, retry=False)
    drawn = teaching.before(iter(TRIALS))
    next(drawn)
    became(teacher, FAILED, reason="out of memory")
    teaching.ended()
    assert list(drawn) == []
    message = r"the teacher digits/densenet41/cs-kd/seed0 has failed \(out of memory; log: .*\): RETRY=1 tries it again"
    with pytest.raises(UserError, match=message):
        teaching.check_trained()
    with pytest.raises(UserError, match=message):
        Teaching(teacher, taught, retry=False).check_not_failed()
    again = Teaching(teacher, taught, retry=True)
    again.check_not_failed()
    assert next(again.before(iter(TRIALS))) is teacher


def test_a_teacher_that_another_process_trains_is_waited_for(runs):
    teacher, taught = runs
    became(teacher, RUNNING)
    teaching = Teaching(teacher, taught, retry=False)
    teaching.check_not_failed()
    drawn = teaching.before(iter(TRIALS))
    assert next(drawn) is teacher  # whose worker finds it taken
    teaching.ended()
    assert [next(drawn), next(drawn)] == [None, None]
    became(teacher, DONE)
    assert list(drawn) == TRIALS


def test_a_teacher_of_another_process_that_dies_is_said(runs):
    teacher, taught = runs
    became(teacher, RUNNING)
    teaching = Teaching(teacher, taught, retry=False)
    drawn = teaching.before(iter(TRIALS))
    next(drawn)
    teaching.ended()
    became(teacher, INTERRUPTED)
    assert list(drawn) == []
    with pytest.raises(UserError, match="seed0 is interrupted: the same command goes on with it"):
        teaching.check_trained()


def test_nobody_elses_teacher_is_waited_for_beyond_the_deadline_and_ones_own_is_finished(runs):
    teacher, taught = runs
    became(teacher, RUNNING)
    teaching = Teaching(teacher, taught, retry=False, deadline=time.monotonic() - 1)
    drawn = teaching.before(iter(TRIALS))
    assert [next(drawn), next(drawn)] == [teacher, None]
    teaching.ended()
    assert list(drawn) == []
    teaching.check_trained()


def test_no_teacher_is_trained_for_a_store_that_cannot_be_used_nor_again_after_it_has_failed(
    call, tmp_path, monkeypatch
):
    assert call("experiments data", "digits")[0] == 0
    arguments = ("experiments tune", "--dataset", "digits", "--method", "kd")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://place")
    status, _, errors = call(*arguments)
    assert status == 2
    assert "MLFLOW_TRACKING_URI=nosuch://place" in errors
    assert not list((tmp_path / "runs").glob("*/spec.json"))
    teacher = resolve(LaunchOptions("digits", "kd"), Console()).teacher()
    teacher.folder.create(teacher.spec)
    teacher.folder.write_state(FAILED, reason="out of memory")
    status, _, errors = call(*arguments)
    assert status == 2
    assert re.fullmatch(r"error: the teacher digits/densenet41/cs-kd/seed0 has failed \(out of memory; .*\): "
                        r"RETRY=1 tries it again\n", errors)  # fmt: skip


def test_tuned_values_say_which_run_has_taught_and_nothing_of_a_teacher_where_there_is_none(call):
    assert call("experiments data", "digits")[0] == 0
    for method in ("kd", "cs-kd"):
        subject = resolve(LaunchOptions("digits", method), Console())
        trial = Trial(0, COMPLETE, subject.recipe_point(), (9.0,), {"nll": 1.0}, {1000: "a"}, "", None, None, {})
        found = make_found(subject, [trial], ("c" * 40, False))
        path = save("digits", method, "demo", "resnet10", found)
        assert load("digits", method) == {"demo/resnet10": found}
        if method == "kd":
            key = subject.teacher().spec.run_key
            assert found.teacher == f"digits/densenet41/cs-kd/seed0, run {key}"
            assert f"taught by {found.teacher}" in call("experiments tuned", "--method", "kd")[1]
        else:
            assert "teacher" not in path.read_text()
