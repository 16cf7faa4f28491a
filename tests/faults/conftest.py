"""The fault harness: things done to the real commands, and a table of what survived.

``make test`` tries a few cases of each fault; ``make test-faults`` (``--all-faults``) all, prints a line a fault and
writes them to RESULTS_DIR/faults.csv. A test takes the ``tally`` fixture, draws as many cases as it says, and counts
each one that it has tried.
"""

import csv
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

TALLIES = pytest.StashKey[dict]()
# Of two processes none is to be left alone with one of these at the end. In their order of minutes.
MAX_NAME_LENGTH = (
    "test_server.py",
    "test_surroundings.py",
    "test_twice.py",
    "test_damage.py",
    "test_security.py",
    "test_kill.py",
)
HEADINGS = ("fault", "tried", "survived", "lost", "seconds")


@dataclass
class Tally:
    """What became of the cases of one fault. A case that is tried and not survived is lost."""

    fault: str
    every: bool  # all cases, not the few of make test
    tried: int = 0
    survived: int = 0
    seconds: float = 0.0
    note: str = ""  # a figure of its own, for below the table

    @property
    def lost(self) -> int:
        return self.tried - self.survived

    def add(self, other: "Tally") -> None:
        """What another process has tried of the same fault."""
        self.tried += other.tried
        self.survived += other.survived
        self.seconds += other.seconds
        self.note = self.note or other.note

    def cases(self, all_of_them: int, few: int) -> int:
        """How many cases to try."""
        return all_of_them if self.every else few

    def __enter__(self) -> "Tally":
        """``with tally:`` around one case: tried when it begins, survived when it ends without an exception."""
        self.tried += 1
        return self

    def __exit__(self, kind, *rest) -> None:
        self.survived += kind is None


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(name): the fault that a test does, as its line in the table")
    config.addinivalue_line("markers", "slow_fault: tried by make test-faults alone")
    config.stash[TALLIES] = {}


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all-faults"):
        order = {name: position for position, name in enumerate(MAX_NAME_LENGTH)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))
        return
    for item in items:
        if item.get_closest_marker("slow_fault"):
            item.add_marker(pytest.mark.skip(reason="tried by make test-faults"))


@pytest.fixture
def tally(request):
    """The count of this test's fault, named by its mark ``fault``; several tests of one fault share it."""
    name = request.node.get_closest_marker("fault").args[0]
    every = request.config.getoption("--all-faults")
    one = request.config.stash[TALLIES].setdefault(name, Tally(name, every))
    started = time.perf_counter()
    yield one
    one.seconds += time.perf_counter() - started


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes (pytest-xdist)
        session.config.workeroutput["tallies"] = [asdict(one) for one in session.config.stash[TALLIES].values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    for message in node.workeroutput.get("tallies", []) if not error else ():
        one = Tally(**message)
        node.config.stash[TALLIES].setdefault(one.fault, Tally(one.fault, one.every)).add(one)


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--all-faults"):
        return
    rows = [
        (one.fault, str(one.tried), str(one.survived), str(one.lost), f"{one.seconds:.0f}")
        for one in config.stash[TALLIES].values()
    ]
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(len(HEADINGS))]
    terminalreporter.section("faults")
    for row in [HEADINGS, *rows]:
        first, *numbers = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        terminalreporter.write_line("  ".join([first, *numbers]))
    for one in config.stash[TALLIES].values():
        if one.note:
            terminalreporter.write_line(f"{one.fault}: {one.note}")
    path = Path(os.environ.get("RESULTS_DIR", "results")) / "faults.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADINGS, *rows])
    terminalreporter.write_line(f"written to {path}")
