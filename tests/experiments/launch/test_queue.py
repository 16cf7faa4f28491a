"""Students wait for their teacher, and no launch waits for a run that another launch trains."""

from types import SimpleNamespace

import pytest

from experiments.launch.queue import RunQueue
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun


@pytest.fixture
def runs(tmp_path):
    """teacher, its student one, plain, its student two"""
    teacher = SimpleNamespace(run_key="teacher", teacher=None)
    others = [("one", teacher), ("plain", None), ("two", teacher)]
    specs = [teacher, *(SimpleNamespace(run_key=key, teacher=its_teacher) for key, its_teacher in others)]
    for spec in specs:
        (tmp_path / spec.run_key).mkdir()
    return [PlannedRun(spec, RunFolder(tmp_path / spec.run_key), 3, 10, 10) for spec in specs]


def keys(runs) -> list[str | None]:
    return [run and run.spec.run_key for run in runs]


def train(queue, ready) -> list[str]:
    """Return the keys of the runs that remain, each of which ends at once."""
    started = []
    for run in ready:
        queue.ended(run, DONE)
        started.append(run.spec.run_key)
    return started


@pytest.mark.parametrize(("state", "expected"), [(DONE, ["one", "two"]), (FAILED, [])])
def test_students_start_after_their_teacher_and_hold_up_no_other_run(runs, state, expected):
    queue = RunQueue(runs)
    ready = queue.ready()
    assert keys([next(ready), next(ready), next(ready)]) == ["teacher", "plain", None]
    runs[0].folder.write_state(state, reason="x")
    queue.ended(runs[0], state)
    queue.ended(runs[2], DONE)
    assert train(queue, ready) == expected
    queue = RunQueue([runs[1], runs[3]])  # the teacher is of an earlier launch
    assert train(queue, queue.ready()) == expected


@pytest.mark.parametrize("first", [0, 1], ids=["this launch", "another launch"])
def test_teacher_in_training_is_waited_for(runs, first):
    runs[0].folder.write_state(RUNNING if first else INTERRUPTED)  # a worker that has just started has an old state
    queue = RunQueue(runs[first:2])
    ready = queue.ready()
    assert keys([next(ready), next(ready)]) == ([None, None] if first else ["teacher", None])
    runs[0].folder.write_state(DONE)
    queue.ended(runs[0], DONE)
    assert train(queue, ready) == ["one"]


def test_run_of_another_launch_is_set_aside_until_it_is_free_or_done(runs):
    calls, runs = [], [run for run in runs if run.spec.teacher is None]
    queue = RunQueue(runs, lambda run, state: calls.append((run.spec.run_key, state)))
    ready = queue.ready()
    with runs[0].folder.leased(), runs[1].folder.leased():
        assert keys([next(ready), next(ready)]) == [None, None]
        runs[1].folder.write_state(DONE)
    assert keys([next(ready)]) == ["teacher"]
    assert keys([next(ready)]) == [None]
    queue.ended(runs[0], RUNNING)  # another process was faster
    assert train(queue, ready) == ["teacher"]
    assert calls == [("teacher", RUNNING), ("plain", RUNNING), ("plain", DONE)]


def test_failure_is_tried_again_unless_another_launch_has_just_met_it(runs):
    runs[0].folder.write_state(FAILED, reason="of an earlier launch")
    queue = RunQueue([runs[0], runs[2]])
    runs[2].folder.write_state(FAILED, reason="of another launch")
    assert train(queue, queue.ready()) == ["teacher"]
