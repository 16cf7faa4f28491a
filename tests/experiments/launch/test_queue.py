"""Runs that are taught wait for their teacher, others do not wait for them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun


@dataclass
class Spec:
    run_key: str
    teacher: "Spec | None" = None


@pytest.fixture
def plan(tmp_path):
    def run(spec: Spec) -> PlannedRun:
        folder = RunFolder(tmp_path / spec.run_key)
        Path(folder.path).mkdir()
        return PlannedRun(spec, folder, 3, 10, 10)

    teacher = Spec("teacher")
    return [run(spec) for spec in (teacher, Spec("one", teacher), Spec("plain"), Spec("two", teacher))]


def names(runs) -> list[str | None]:
    return [run and run.spec.run_key for run in runs]


def test_students_come_after_their_teacher_and_hold_nobody_up(plan):
    waiting = RunQueue(plan)
    ready = waiting.ready()
    assert names([next(ready), next(ready), next(ready)]) == ["teacher", "plain", None]
    plan[0].folder.write_state(DONE)
    waiting.ended(plan[0])
    assert names(ready) == ["one", "two"]


def test_a_failed_teacher_leaves_its_students_out(plan):
    waiting = RunQueue(plan)
    ready = waiting.ready()
    next(ready)
    plan[0].folder.write_state(FAILED, reason="x")
    waiting.ended(plan[0])
    assert names(ready) == ["plain"]


@pytest.mark.parametrize(("state", "given"), [(DONE, ["one", "plain", "two"]), (FAILED, ["plain"])])
def test_a_teacher_of_an_earlier_launch_counts(plan, state, given):
    plan[0].folder.write_state(state, reason="")
    assert names(RunQueue(plan[1:]).ready()) == given


def test_a_teacher_that_another_launch_trains_is_waited_for(plan):
    plan[0].folder.write_state(RUNNING)
    ready = RunQueue(plan[1:2]).ready()
    assert names([next(ready), next(ready)]) == [None, None]
    plan[0].folder.write_state(DONE)
    assert names(ready) == ["one"]


def test_a_teacher_that_is_started_but_still_has_an_old_state_is_waited_for(plan):
    plan[0].folder.write_state(INTERRUPTED)
    ready = RunQueue(plan[:2]).ready()
    assert names([next(ready), next(ready)]) == ["teacher", None]


def test_a_run_that_another_process_holds_is_put_aside_until_it_is_free_or_done(plan):
    message = []
    runs = [run for run in plan if run.spec.teacher is None]
    ready = RunQueue(runs, elsewhere=lambda run, state: message.append((run.spec.run_key, state))).ready()
    with runs[0].folder.claimed(), runs[1].folder.claimed():
        assert names([next(ready), next(ready)]) == [None, None]
        runs[1].folder.write_state(DONE)
    assert names(ready) == ["teacher"]
    assert message == [("teacher", RUNNING), ("plain", RUNNING), ("plain", DONE)]


def test_a_run_that_another_process_was_faster_to_hold_comes_again(plan):
    waiting = RunQueue(plan[2:3])
    ready = waiting.ready()
    next(ready)
    waiting.ended(plan[2], RUNNING)
    assert names(ready) == ["plain"]


def test_a_failure_is_tried_again_unless_another_launch_has_just_met_it(plan):
    plan[0].folder.write_state(FAILED, reason="of an earlier launch")
    waiting = RunQueue([plan[0], plan[2]])
    plan[2].folder.write_state(FAILED, reason="of another launch")
    assert names(waiting.ready()) == ["teacher"]
