"""The fault harness: faults done to the real commands, and a table of what survived.

``make test`` tries a few cases of each fault. ``make test-faults`` (``--all-faults``) tries all, prints a line for each
fault and writes them to RESULTS_DIR/faults.csv. A test takes the ``tally`` fixture and counts its cases with it.
"""

import csv
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from faults.disturbed import GRID, Disturbed
from place import Place

TALLIES = pytest.StashKey[dict]()
HEADINGS = ("fault", "tried", "survived", "lost", "seconds")


@dataclass
class Tally:
    """The cases of one fault. A case that does not survive is lost."""

    fault: str
    every: bool  # True: all cases, not the few of make test
    tried: int = 0
    survived: int = 0
    seconds: float = 0.0
    note: str = ""  # printed below the table

    @property
    def row(self) -> tuple[str, ...]:
        lost = self.tried - self.survived
        return (self.fault, str(self.tried), str(self.survived), str(lost), f"{self.seconds:.0f}")

    def add(self, other: "Tally") -> None:
        """Add the cases that another process tried."""
        self.tried += other.tried
        self.survived += other.survived
        self.seconds += other.seconds
        self.note = self.note or other.note

    def cases(self, all_of_them: int, few: int) -> int:
        """Return how many cases to try."""
        return all_of_them if self.every else few

    def __enter__(self) -> "Tally":
        """``with tally:`` is one case: it survives if no exception is raised."""
        self.tried += 1
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self.survived += kind is None


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(name): the line of the table that a test counts for")
    config.addinivalue_line("markers", "slow_fault: only in make test-faults")
    config.stash[TALLIES] = {}


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all-faults"):
        return
    for item in items:
        if item.get_closest_marker("slow_fault"):
            item.add_marker(pytest.mark.skip(reason="only in make test-faults"))


@pytest.fixture
def tally(request):
    """The tally of the test's mark ``fault``, shared by all tests of that fault."""
    name = request.node.get_closest_marker("fault").args[0]
    every = request.config.getoption("--all-faults")
    tally = request.config.stash[TALLIES].setdefault(name, Tally(name, every))
    started = time.perf_counter()
    yield tally
    tally.seconds += time.perf_counter() - started


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Place:
    """The trained grid, with which disturbed ones are compared."""
    place = Disturbed(tmp_path_factory.mktemp("undisturbed"), *GRID, "--workers", "2")
    status, output, errors = place.call(*place.command)
    assert (status, errors) == (0, ""), output
    return place


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["tallies"] = [asdict(tally) for tally in session.config.stash[TALLIES].values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    for values in node.workeroutput.get("tallies", []) if not error else ():
        tally = Tally(**values)
        node.config.stash[TALLIES].setdefault(tally.fault, Tally(tally.fault, tally.every)).add(tally)


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--all-faults"):
        return
    tallies = config.stash[TALLIES].values()
    table = [HEADINGS, *(tally.row for tally in tallies)]
    width = max(len(row[0]) for row in table)
    terminalreporter.section("faults")
    for fault, *numbers in table:
        terminalreporter.write_line("  ".join([fault.ljust(width), *(text.rjust(8) for text in numbers)]))
    for tally in tallies:
        if tally.note:
            terminalreporter.write_line(f"{tally.fault}: {tally.note}")
    path = Path(os.environ.get("RESULTS_DIR", "results")) / "faults.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    terminalreporter.write_line(f"written to {path}")
