"""The lease of a run: one owner at a time, and a dead owner is replaced."""

import os
import signal
import subprocess
import sys

import pytest

from experiments.runs import lease as lease_module
from experiments.runs.lease import LeaseLost, is_held, lease_of, run_lease

# It has a forked process, such as a data loader's worker, which outlives it.
OWNER = """
import sys, time
from pathlib import Path
from multiprocessing import get_context
from experiments.runs import lease
lease.LEASE_SECONDS = 2.0
with lease.run_lease(Path(sys.argv[1])) as owned:
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
    assert not is_held(tmp_path)
    with run_lease(tmp_path) as lease:
        lease.check()
        assert is_held(tmp_path)
        with run_lease(tmp_path, patience=0.0) as other:
            assert other is None
    assert not is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_token_of_the_lease_allows_another_process_to_write_while_it_is_held(tmp_path):
    with run_lease(tmp_path) as lease:
        of_replica = lease_of(tmp_path, lease.token)
        of_replica.check()
    with run_lease(tmp_path), pytest.raises(LeaseLost):
        of_replica.check()


def test_lease_of_a_killed_process_is_free_at_once(tmp_path):
    owner = start_owner(tmp_path)
    assert is_held(tmp_path)
    owner.kill()
    owner.wait()
    assert not is_held(tmp_path)
    with run_lease(tmp_path, patience=0.0) as lease:
        lease.check()


def test_suspended_process_learns_on_waking_that_it_lost_the_run(tmp_path):
    owner = start_owner(tmp_path)
    owner.send_signal(signal.SIGSTOP)
    with run_lease(tmp_path, patience=20.0) as lease:
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout.readline() == "lost\n"
        owner.wait()
        lease.check()  # the old owner removed only its own lease
        assert is_held(tmp_path)


def test_owner_on_another_machine_is_dead_after_the_lease_time(tmp_path):
    (tmp_path / "lease").write_text(OTHER_MACHINE)
    assert is_held(tmp_path)
    os.utime(tmp_path / "lease", (1, 1))
    assert not is_held(tmp_path)
