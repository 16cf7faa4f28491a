"""What is recorded about the machine and the code."""

import subprocess

import joblib
import pytest
import torch

from experiments.runs.environment import commit, describe, usable_cores


@pytest.mark.parametrize(
    ("cores", "environment", "expected"),
    [
        (8, {}, 8),
        (8, {"OMP_NUM_THREADS": "1"}, 1),
        (2, {"OMP_NUM_THREADS": "8"}, 2),
        (8, {"OMP_NUM_THREADS": "many", "SLURM_CPUS_PER_TASK": "0"}, 8),
        (8, {"OMP_NUM_THREADS": "4", "SLURM_CPUS_PER_TASK": "2"}, 2),
    ],
)
def test_usable_cores_are_limited_by_machine_user_and_scheduler(monkeypatch, cores, environment, expected):
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == expected


def test_device_threads_and_precision_are_separate_facts():
    facts = describe(torch.device("cpu"), "bf16", compiled=True)
    assert (facts["device"], facts["precision"], facts["compiled"]) == ("cpu", "bf16", True)
    assert facts["threads"] == torch.get_num_threads()


def test_measured_results_do_not_make_the_commit_dirty(tmp_path):
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
