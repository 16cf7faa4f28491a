"""What is recorded about the machine and the code."""

import joblib
import pytest
import torch

from experiments.runs.environment import describe, usable_cores


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
