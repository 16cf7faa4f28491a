"""The launch loop, with a backend whose jobs exist only in memory."""

import os
import signal
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from experiments.launch import loop
from experiments.launch.backends import Exit
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_HELD, EXIT_INTERRUPTED, EXIT_STOPPED
from experiments.launch.loop import LaunchCallbacks, launch
from experiments.runs import folder as folder_module
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun


@dataclass
class FakeBackend:
    """Jobs that end at their second poll as ``exits`` says, an OSError at their start, or by a signal of ``deadly``."""

    exits: dict[str, Exit | OSError] = field(default_factory=dict)
    deadly: tuple[int, ...] = (signal.SIGKILL,)
    signals: list[int] = field(default_factory=list)
    slots: set[int] = field(default_factory=set)  # of the running jobs
    max_running: int = 0
    capacity: int = 2

    def start(self, job, slot):
        ended = self.exits.get(job.folder.name)
        if isinstance(ended, OSError):
            raise ended
        assert slot not in self.slots
        self.slots.add(slot)
        self.max_running = max(self.max_running, len(self.slots))
        return SimpleNamespace(slot=slot, polls=0, ended=ended)

    def poll(self, handle):
        handle.polls += 1
        if handle.polls < 2 or handle.ended is None:
            return None
        self.slots.remove(handle.slot)
        return handle.ended

    def stop(self, handle, number):
        self.signals.append(number)
        if number in self.deadly and handle.ended is None:
            handle.ended = Exit(-number)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(loop, "STOP_SECONDS", 0.1)


@pytest.fixture
def runs(tmp_path) -> list[PlannedRun]:
    """Runs whose keys are 0, 1, ..."""
    folders = [tmp_path / str(number) for number in range(len(CAUSES))]
    for folder in folders:
        folder.mkdir()
    settings = SimpleNamespace(replicas=1)
    specs = [SimpleNamespace(run_key=folder.name, teacher=None, settings=settings) for folder in folders]
    return [PlannedRun(spec, RunFolder(folder), 1, 1, 1) for spec, folder in zip(specs, folders, strict=True)]


CAUSES = [
    (Exit(EXIT_HELD), RUNNING, "not started"),  # the other process writes the state
    (Exit(EXIT_INTERRUPTED), INTERRUPTED, "interrupted: the disk is full: make room"),
    (Exit(EXIT_STOPPED), INTERRUPTED, "interrupted: stopped before it began"),
    (Exit(-signal.SIGKILL), INTERRUPTED, "interrupted: killed (SIGKILL); if memory ran out, use fewer WORKERS"),
    (Exit(-signal.SIGTERM), INTERRUPTED, "interrupted: the process ended by SIGTERM"),
    (Exit(-signal.SIGSEGV), FAILED, "failed: the process ended by SIGSEGV"),
    (Exit(EXIT_DONE), FAILED, "failed: the process ended with status 0"),
    (Exit(-signal.SIGKILL, out_of_memory=True), FAILED, "failed: killed by the system, which was out of memory: use"),
    (OSError("no more processes"), FAILED, "failed: its process cannot be started: no more processes"),
]


def test_cause_is_recorded_for_a_process_that_died_silently_and_stops_no_other(runs):
    backend, ended = FakeBackend({str(number): cause for number, (cause, *_) in enumerate(CAUSES)}), {}
    callbacks = LaunchCallbacks(ended=lambda run, state: ended.__setitem__(run.spec.run_key, state))
    assert launch(iter(runs), backend, callbacks)
    assert backend.max_running == 2
    for run, (_, state, reason) in zip(runs, CAUSES, strict=True):
        assert ended[run.spec.run_key] == state
        assert run.folder.state()["reason"].startswith(reason)


def test_recorded_state_counts_unless_it_is_of_an_earlier_process(runs):
    runs[1].folder.write_state(FAILED, reason="of an earlier process")
    ended, backend = [], FakeBackend({"0": Exit(EXIT_FAILED), "1": Exit(7)}, capacity=1)
    callbacks = LaunchCallbacks(
        started=lambda run: run.folder.write_state(DONE) if run is runs[0] else None,
        ended=lambda run, state: ended.append((state, run.folder.state()["reason"])),
    )
    assert launch(iter(runs[:2]), backend, callbacks)
    assert ended == [(DONE, DONE), (FAILED, "failed: the process ended with status 7")]


def test_cause_of_death_is_recorded_after_a_long_silence_too(runs, monkeypatch):
    """A process trains no step, and has no heartbeat, while it evaluates."""
    monkeypatch.setattr(folder_module, "HEARTBEAT_LIMIT", -1.0)
    backend = FakeBackend({"0": Exit(-signal.SIGKILL, out_of_memory=True)})
    assert launch(iter(runs[:1]), backend, LaunchCallbacks(progressed=lambda run: run.folder.write_state(RUNNING)))
    assert runs[0].folder.state()["reason"].startswith("failed: killed by the system, which was out of memory")


def test_ctrl_c_stops_the_runs_and_starts_no_other(runs):
    backend, ended, polls = FakeBackend(), [], []

    def progressed(run):
        polls.append(run)
        if len(polls) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    callbacks = LaunchCallbacks(progressed=progressed, ended=lambda run, state: ended.append(state))
    assert not launch(iter(runs), backend, callbacks)
    assert backend.signals[:2] == [signal.SIGINT] * 2
    assert set(backend.signals[2:]) == {signal.SIGKILL}
    assert ended == [INTERRUPTED] * 2
    assert runs[0].folder.state()["reason"] == "interrupted: killed before it stopped by itself"


def test_run_that_is_no_longer_wanted_is_stopped_alone(runs):
    backend = FakeBackend({"1": Exit(EXIT_HELD), "2": Exit(EXIT_INTERRUPTED)}, deadly=(signal.SIGTERM,))
    wanted = LaunchCallbacks(should_stop=lambda run: run is not runs[1])
    assert launch(iter(runs[:3]), backend, wanted)
    assert backend.signals == [signal.SIGTERM] * 2
    assert runs[0].folder.state()["state"] == INTERRUPTED
    assert runs[2].folder.state()["reason"] == "interrupted: stopped before it began"  # not: the disk is full
