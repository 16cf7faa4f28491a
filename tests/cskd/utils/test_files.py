"""Atomic writes and exclusive sections."""

import errno
from queue import Queue
from threading import Thread

import pytest

from cskd.utils.errors import UserError
from cskd.utils.files import DiskFull, atomic_write, exclusive


def test_atomic_write_replaces_the_file_only_on_success(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), atomic_write(path, before_replace=lambda: 1 / 0) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_errors_name_the_path(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(DiskFull, match=rf"{path} cannot be written \(No space left"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="cannot be written"), exclusive(tmp_path / ("x" * 300)):
        pass


def test_exclusive_lets_one_thread_in_at_a_time_and_reports_the_wait(tmp_path):
    lock, events = tmp_path / "new" / "lock", Queue()

    def work():
        with exclusive(lock, lambda: events.put("wait")):
            events.put("enter")

    thread = Thread(target=work)
    with exclusive(lock):
        thread.start()
        assert events.get(timeout=30) == "wait"
        assert events.empty()
    assert events.get(timeout=30) == "enter"
    thread.join()
