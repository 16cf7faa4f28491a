"""Options of all tests, and commands run within the test's own process."""

import os
import signal
import sys

import pytest
from place import Place, command_of

from cskd.utils import cli

# What the tests share asserts as well, and is to say with what values it failed.
pytest.register_assert_rewrite("faults.backend", "faults.disturbed")


def pytest_addoption(parser):
    parser.addoption("--all-faults", action="store_true", help="every case of the faults, and their table")


def pytest_configure(config):
    # Ignored where the tests run in the background of a shell, and then by every command that they start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Of the make that runs the tests: one that a test runs would take itself for a part of it, and say more.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        os.environ.pop(name, None)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a command within this process, in a place of its own; returns (exit status, output, errors)."""
    for name, value in Place(tmp_path).environment.items():
        monkeypatch.setenv(name, value)

    def run(module: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.run(command_of(module).main)
        return caught.value.code or 0, *capsys.readouterr()

    return run
