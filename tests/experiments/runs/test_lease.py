"""The lease of a run: one owner at a time, and a dead owner is replaced."""

import os
import signal
import subprocess
import sys

import pytest

from experiments.runs import lease as lease_module
from experiments.runs.lease import LeasedFolder, LeaseLost

# It has a forked process, such as a data loader's worker, which outlives it.
OWNER = """
import sys, time
from pathlib import Path
from multiprocessing import get_context
from experiments.runs import lease
lease.LEASE_SECONDS = 2.0
with lease.LeasedFolder(Path(sys.argv[1])).leased() as owned:
    get_context("fork").Process(target=time.sleep, args=(10,), daemon=True).start()
    print(bool(owned), flush=True)
    while True:
        time.sleep(0.1)
        try:
            owned.check()
        except lease.LeaseLost:
            print("lost", flush=True)
            break
"""
OTHER_MACHINE = "filelock/2\npid=1\nhost=another\nmode=lease\ntoken=1\nduration=2.0\n"


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 2.0)


def start_owner(folder):
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_lease_has_one_owner_and_leaves_no_file(tmp_path):
    assert not LeasedFolder(tmp_path).is_held()
    with LeasedFolder(tmp_path).leased() as lease:
        lease.check()
        assert LeasedFolder(tmp_path).is_held()
        with LeasedFolder(tmp_path).leased(patience=0.0) as other:
            assert other is None
    assert not LeasedFolder(tmp_path).is_held()
    assert not list(tmp_path.iterdir())


def test_token_of_the_lease_allows_another_process_to_write_while_it_is_held(tmp_path):
    replica = LeasedFolder(tmp_path)
    with LeasedFolder(tmp_path).leased() as lease, replica.leased_by(lease.token):
        replica.before_replace()
    with LeasedFolder(tmp_path).leased(), replica.leased_by(lease.token), pytest.raises(LeaseLost):
        replica.before_replace()


def test_lease_of_a_killed_process_is_free_at_once(tmp_path):
    owner = start_owner(tmp_path)
    assert LeasedFolder(tmp_path).is_held()
    owner.kill()
    owner.wait()
    assert not LeasedFolder(tmp_path).is_held()
    with LeasedFolder(tmp_path).leased(patience=0.0) as lease:
        lease.check()


def test_suspended_process_learns_on_waking_that_it_lost_the_run(tmp_path):
    owner = start_owner(tmp_path)
    owner.send_signal(signal.SIGSTOP)
    with LeasedFolder(tmp_path).leased(patience=20.0) as lease:
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout.readline() == "lost\n"
        owner.wait()
        lease.check()  # the old owner removed only its own lease
        assert LeasedFolder(tmp_path).is_held()


def test_owner_on_another_machine_is_dead_after_the_lease_time(tmp_path):
    (tmp_path / "lease").write_text(OTHER_MACHINE)
    assert LeasedFolder(tmp_path).is_held()
    os.utime(tmp_path / "lease", (1, 1))
    assert not LeasedFolder(tmp_path).is_held()
