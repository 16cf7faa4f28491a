"""Runs on several devices: which GPUs they get, and how they end. ``make test-clusters`` trains them."""

import json
import signal

import pytest
import torch

from cskd.utils.errors import UserError
from experiments.launch.backends.base import EXIT_FAILED, EXIT_HELD, EXIT_INTERRUPTED
from experiments.launch.backends.local import LocalBackend
from experiments.launch.torchrun import ReplicaEnded, check_devices, how_they_ended
from experiments.runs.folder import FAILED, INTERRUPTED
from experiments.runs.lease import LeaseLost

REPORTED = {"state": FAILED, "reason": "out of memory"}


@pytest.mark.parametrize(
    ("statuses", "report", "state", "reason"),
    [
        # the loss of one makes the others fail, which do not report that
        ({0: EXIT_FAILED, 1: -signal.SIGKILL}, None, INTERRUPTED, "replica 1 was killed (SIGKILL); if memory"),
        # torchrun stops the others
        ({1: EXIT_FAILED, 0: -signal.SIGTERM, 2: -signal.SIGKILL}, REPORTED, FAILED, "out of memory"),
        ({0: EXIT_INTERRUPTED}, {"state": INTERRUPTED, "reason": "the disk is full"}, INTERRUPTED, "the disk is full"),
        ({1: -signal.SIGSEGV}, None, FAILED, "replica 1 ended by SIGSEGV"),
        ({0: 7}, None, FAILED, "replica 0 ended with status 7"),
    ],
)
def test_reason_of_an_end_is_that_of_the_first_replica_that_ended(tmp_path, statuses, report, state, reason):
    file = tmp_path / "ended.json"
    if report:
        file.write_text(json.dumps(report))
    ended = how_they_ended(statuses, file)
    assert isinstance(ended, ReplicaEnded)
    assert ended.state == state
    assert ended.reason.startswith(reason)


def test_replica_that_lost_the_lease_ends_the_worker_as_held(tmp_path):
    assert isinstance(how_they_ended({0: EXIT_HELD, 1: EXIT_FAILED}, tmp_path / "ended.json"), LeaseLost)


def test_replicas_need_a_gpu_each_unless_there_is_none(monkeypatch):
    for gpus, fits in ((0, True), (1, False), (2, True), (8, True)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        if fits:
            check_devices(2)
        else:
            with pytest.raises(UserError, match="replicas 2: this machine has 1 GPU"):
                check_devices(2)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(1, ["a", "b", "c", "d", "a"]), (2, ["a,b", "c,d", "a,b"]), (3, ["a,b,c"] * 2), (8, ["a,b,c,d"])],
)
def test_jobs_share_gpus_only_if_there_are_too_few(monkeypatch, gpus, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "a,b,c,d")
    backend = LocalBackend(workers=len(expected))
    assert [",".join(backend._devices_of(slot, gpus)) for slot in range(len(expected))] == expected
