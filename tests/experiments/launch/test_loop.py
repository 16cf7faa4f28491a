"""The launch loop, with a backend whose jobs exist only in memory."""

import os
import signal
from dataclasses import dataclass, field

import pytest

from experiments.launch import loop
from experiments.launch.backends import Exit
from experiments.launch.backends.base import EXIT_HELD, EXIT_INTERRUPTED
from experiments.launch.loop import LaunchCallbacks, launch
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun


@dataclass
class Spec:
    run_key: str
    teacher: None = None


@dataclass
class FakeBackend:
    """Jobs that end at their second poll as ``exits`` says, or when a signal ends them."""

    detached = False
    exits: dict[str, Exit] = field(default_factory=dict)
    running: list[tuple[str, int]] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    max_running: int = 0

    def start(self, job, slot):
        handle = {"key": job.folder.name, "slot": slot, "polls": 0, "signal": None}
        self.running.append((handle["key"], slot))
        self.max_running = max(self.max_running, len(self.running))
        assert len({slot for _, slot in self.running}) == len(self.running)
        return handle

    def poll(self, handle):
        handle["polls"] += 1
        ended = Exit(-handle["signal"]) if handle["signal"] else self.exits.get(handle["key"])
        if handle["polls"] < 2 or ended is None:
            return None
        self.running.remove((handle["key"], handle["slot"]))
        return ended

    def stop(self, handle, number):
        self.signals.append(number)
        if number == signal.SIGKILL:
            handle["signal"] = number


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(loop, "STOP_SECONDS", 0.1)


def make_runs(folder, count):
    for number in range(count):
        (folder / str(number)).mkdir()
    return [PlannedRun(Spec(str(number)), RunFolder(folder / str(number)), 1, 1, 1) for number in range(count)]


CAUSES = [
    (Exit(EXIT_HELD), RUNNING, None),
    (Exit(EXIT_INTERRUPTED), INTERRUPTED, "interrupted: the disk is full: make room"),
    (Exit(-signal.SIGKILL), INTERRUPTED, "interrupted: killed (SIGKILL); if memory ran out, use fewer WORKERS"),
    (Exit(-signal.SIGTERM), INTERRUPTED, "interrupted: the process ended by SIGTERM"),
    (Exit(-signal.SIGSEGV), FAILED, "failed: the process ended by SIGSEGV"),
    (Exit(0), FAILED, "failed: the process ended with status 0"),
    (
        Exit(-signal.SIGKILL, out_of_memory=True),
        FAILED,
        "failed: killed by the system, which was out of memory: use fewer WORKERS or a smaller batch",
    ),
]


def test_cause_is_recorded_for_a_process_that_died_silently(tmp_path):
    runs, ended = make_runs(tmp_path, len(CAUSES)), {}
    backend = FakeBackend({run.spec.run_key: cause for run, (cause, *_) in zip(runs, CAUSES, strict=True)})
    callbacks = LaunchCallbacks(ended=lambda run, state: ended.__setitem__(run.spec.run_key, state))
    assert launch(iter(runs), backend, 2, callbacks)
    assert backend.max_running == 2
    for run, (_, state, reason) in zip(runs, CAUSES, strict=True):
        assert ended[run.spec.run_key] == state
        if reason:
            assert (run.folder.state()["state"], run.folder.state()["reason"]) == (state, reason)


def test_recorded_state_counts_unless_it_is_of_an_earlier_process(tmp_path):
    runs, ended = make_runs(tmp_path, 2), []
    runs[1].folder.write_state(FAILED, reason="of an earlier process")
    backend = FakeBackend({"0": Exit(1), "1": Exit(7)})
    callbacks = LaunchCallbacks(
        started=lambda run: run.folder.write_state(DONE) if run is runs[0] else None,
        ended=lambda run, state: ended.append((state, run.folder.state()["reason"])),
    )
    assert launch(iter(runs), backend, 1, callbacks)
    assert ended == [(DONE, DONE), (FAILED, "failed: the process ended with status 7")]


def test_ctrl_c_stops_the_runs_and_starts_no_other(tmp_path):
    runs, backend, ended = make_runs(tmp_path, 3), FakeBackend(), []
    polls = []

    def progressed(run):
        polls.append(run)
        if len(polls) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    callbacks = LaunchCallbacks(progressed=progressed, ended=lambda run, state: ended.append(state))
    assert not launch(iter(runs), backend, 2, callbacks)
    assert backend.signals[:2] == [signal.SIGINT] * 2
    assert set(backend.signals[2:]) == {signal.SIGKILL}
    assert ended == [INTERRUPTED] * 2
    assert runs[0].folder.state()["reason"] == "interrupted: killed before it stopped by itself"


def test_run_that_is_no_longer_wanted_is_stopped_alone(tmp_path):
    runs, backend = make_runs(tmp_path, 2), FakeBackend({"1": Exit(0)})
    backend.stop = lambda handle, number: backend.signals.append(number) or handle.update(signal=number)
    assert launch(iter(runs), backend, 2, LaunchCallbacks(should_stop=lambda run: run is runs[0]))
    assert backend.signals == [signal.SIGTERM]
    assert runs[0].folder.state()["state"] == INTERRUPTED


def test_run_that_was_stopped_before_it_began_does_not_blame_the_disk(tmp_path):
    [run], backend = make_runs(tmp_path, 1), FakeBackend({"0": Exit(EXIT_INTERRUPTED)})
    assert launch(iter([run]), backend, 1, LaunchCallbacks(should_stop=lambda run: True))
    assert run.folder.state()["reason"] == "interrupted: stopped before it began"


def test_run_that_cannot_be_started_fails_alone(tmp_path):
    runs, backend, ended = make_runs(tmp_path, 2), FakeBackend({"1": Exit(0)}), []
    start = backend.start

    def refuse(job, slot):
        if job.folder.name == "0":
            raise OSError("no more processes")
        return start(job, slot)

    backend.start = refuse
    assert launch(iter(runs), backend, 1, LaunchCallbacks(ended=lambda run, state: ended.append(run.spec.run_key)))
    assert ended == ["0", "1"]
    assert runs[0].folder.state()["reason"] == "failed: its process cannot be started: no more processes"
