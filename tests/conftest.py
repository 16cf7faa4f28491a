"""Options and fixtures of all tests: commands called in process, and one trained grid."""

import os
import signal

import place as places
import pytest
from builders import empty_store
from filelock import FileLock
from place import Place, epoch_options

pytest.register_assert_rewrite("faults.backend", "faults.disturbed")

# These start first, so that two processes, which take whole files, end at about the same time.
LONGEST_FILES = (
    "faults/test_kill.py", "faults/test_twice.py", "faults/test_first_launch.py", "faults/test_disk_full.py",
    "faults/test_failures.py", "faults/test_surroundings.py", "faults/test_security.py", "faults/test_server.py",
    "faults/test_damage.py", "faults/test_signals.py", "faults/test_fuzz.py",
    "bench/test_bench.py", "commands/test_grid.py", "tuning/test_commands.py", "report/test_report.py",
    "tracking/test_serving.py", "bench/test_reference.py", "launch/test_worker.py",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--all-faults", action="store_true", help="try every case of the faults, and print their table")


def pytest_configure(config):
    # A shell starts background processes with SIGINT ignored, and the commands under test would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without these, a make under test behaves as a part of the make that runs the tests.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items):
    order = {name: position for position, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: order.get("/".join(item.path.parts[-2:]), len(order)))


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
    """A trained grid, shared by the processes of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # the folder that the processes share
    place = DemoGrid(shared / "demo grid é")
    with FileLock(shared / "demo_grid.lock"):
        if not place.folder.exists():
            place.train()
    return place
