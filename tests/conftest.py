"""Options and fixtures of all tests: commands called in process, and one trained grid."""

import os
import signal

import place as places
import pytest
from builders import empty_store
from place import Place, epoch_options, make_once

pytest_plugins = ["tally"]
pytest.register_assert_rewrite("faults.disturbed")


def pytest_configure(config):
    # A shell starts background processes with SIGINT ignored, and the commands under test would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without these, a make under test behaves as a part of the make that runs the tests.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        os.environ.pop(name, None)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls a command in this process, with its own folders; returns (exit status, output, errors)."""
    for name, value in Place(tmp_path).environment.items():
        monkeypatch.setenv(name, value)
    return places.call


class DemoGrid(Place):
    """Two runs of two epochs, trained without MLflow and Optuna, and uploaded afterwards. Tests only read it."""

    command = ("experiments grid", "demo", "--seeds", "0", "--workers", "2", *epoch_options(2))
    printed = "printed.txt"

    def train(self) -> None:
        hidden = self.folder / "hidden"
        for package in ("mlflow", "optuna"):
            (hidden / package).mkdir(parents=True)
            error = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
            (hidden / package / "__init__.py").write_text(error)
        self.environment["PYTHONPATH"] = str(hidden)
        status, output, errors = self.run(*self.command)
        assert (status, errors) == (0, ""), output
        (self.folder / self.printed).write_text(output)
        del self.environment["PYTHONPATH"]
        empty_store(self.folder)
        status, output, errors = self.call("experiments sync")
        assert (status, errors) == (0, ""), output


@pytest.fixture(scope="session")
def demo_grid(tmp_path_factory) -> DemoGrid:
    """A trained grid, which tests only read."""
    return DemoGrid(make_once(tmp_path_factory, "demo grid é", lambda folder: DemoGrid(folder).train()))
