"""Options and fixtures of all tests: commands called in process, and one trained grid."""

import os
import signal
import sys

import pytest
from builders import empty_store
from filelock import FileLock
from place import DEMO_GRID, Place, command_of

from cskd.utils import cli

pytest.register_assert_rewrite("faults.backend", "faults.disturbed")


def pytest_addoption(parser):
    parser.addoption("--all-faults", action="store_true", help="try every case of the faults, and print their table")


def pytest_configure(config):
    # A shell starts background processes with SIGINT ignored, and the commands under test would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without these, a make under test behaves as a part of the make that runs the tests.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        os.environ.pop(name, None)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls a command in this process, with its own folders; returns (exit status, output, errors)."""
    for name, value in Place(tmp_path).environment.items():
        monkeypatch.setenv(name, value)

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.run(command_of(command).main)
        return caught.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def demo_grid(tmp_path_factory) -> Place:
    """The folders of a grid that was trained and tracked: both methods, two seeds, two epochs. Tests only read it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # the folder that the processes share
    place = Place(shared / "demo grid é")
    with FileLock(shared / "demo_grid.lock"):
        if not place.folder.exists():
            place.folder.mkdir()
            empty_store(place.folder)
            for command in (("experiments data", "digits"), ("experiments grid", *DEMO_GRID)):
                status, output, errors = place.run(*command)
                assert (status, errors) == (0, ""), output
    return place
