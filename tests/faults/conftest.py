"""The table of faults: how many cases of each were tried, and how many the suite survived.

``make test`` tries a few cases. ``make test-faults`` (``--all-faults``) tries all, prints the table and writes it to
RESULTS_DIR/faults.csv. A test has the mark ``fault`` with a line of the table, and counts its cases with ``tally``.
"""

import csv
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest
from faults.disturbed import GRID, Disturbed
from place import Place, make_once
from tabulate import tabulate

HEADINGS = ("fault", "tried", "survived", "lost", "seconds")


class Tally:
    """Counts cases: ``with tally:`` is a case, which survives if no exception is raised."""

    def __init__(self, every: bool):
        self.every = every  # True: all cases, not the few of make test
        self.tried = self.survived = 0

    def cases(self, all_of_them: int, few: int) -> int:
        """Return how many cases to try."""
        return all_of_them if self.every else few

    def __enter__(self) -> "Tally":
        self.tried += 1
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self.survived += kind is None


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(name): the line of the table that a test counts for")
    config.addinivalue_line("markers", "slow_fault: only in make test-faults")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow_fault") and not config.getoption("--all-faults"):
            item.add_marker(pytest.mark.skip(reason="only in make test-faults"))


@pytest.fixture
def tally(request):
    """The tally of a test. Its report carries the result to the process that prints the table."""
    tally, started = Tally(request.config.getoption("--all-faults")), time.perf_counter()
    yield tally
    cases = (tally.tried, tally.survived, time.perf_counter() - started)
    request.node.user_properties.append((request.node.get_closest_marker("fault").args[0], cases))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Place:
    """The trained grid with seeds 0 to 3, with which disturbed ones are compared."""

    def train(folder: Path) -> None:
        place = Disturbed(folder, *GRID, "--seeds", "0", "1", "2", "3")
        status, output, errors = place.call(*place.command)
        assert (status, errors) == (0, ""), output

    return Place(make_once(tmp_path_factory, "undisturbed", train))


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--all-faults"):
        return
    sums = defaultdict(lambda: [0, 0, 0.0])
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for fault, cases in report.user_properties if getattr(report, "when", "") == "teardown" else ():
            sums[fault] = [total + more for total, more in zip(sums[fault], cases, strict=True)]
    table = [HEADINGS]
    for fault, (tried, survived, seconds) in sorted(sums.items()):
        table.append((fault, tried, survived, tried - survived, round(seconds)))
    terminalreporter.section("faults")
    terminalreporter.write_line(tabulate(table, headers="firstrow"))
    path = Path(os.environ.get("RESULTS_DIR", "results")) / "faults.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    terminalreporter.write_line(f"written to {path}")
