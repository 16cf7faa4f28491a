"""What is recorded of the machine."""

import os
import subprocess

import pytest
import torch

from experiments.runs import environment
from experiments.runs.environment import SystemMetrics, commit, usable_cores


def test_epochs_that_are_recorded_together_have_the_share_of_the_processor_of_all_of_them(monkeypatch):
    """Short epochs are, once a checkpoint holds them: between two of them no time passes."""
    clock, shares = [100.0], iter([0.0, 61.0, 64.0])
    monkeypatch.setattr(environment.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(environment.psutil.Process, "cpu_percent", lambda process: next(shares))
    system = SystemMetrics(torch.device("cpu"))

    def share() -> float | None:
        return system.read().get("system/cpu_utilization_percentage")

    assert share() is None  # nothing has passed since the start
    for message in (61.0, 64.0):
        clock[0] += 2.0
        assert [share() for _ in range(3)] == [message] * 3


@pytest.mark.parametrize(
    ("own", "asked", "used"),
    [(8, None, 8), (8, "1", 1), (1, None, 1), (2, "8", 2), (8, "", 8), (8, "0", 8), (8, "many", 8)],
)
def test_no_more_threads_than_a_scheduler_leaves_and_the_user_asks_for(monkeypatch, own, asked, used):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(own)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert usable_cores() == used


def test_measured_results_are_no_change_of_the_code(tmp_path):
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "-A")
    git("commit", "-m", "one")
    (tmp_path / "results" / "measured").mkdir(parents=True)
    (tmp_path / "results" / "measured" / "runs.csv").write_text("1")
    revision, dirty = commit(tmp_path)
    assert (len(revision), dirty) == (40, False)
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == (revision, True)
