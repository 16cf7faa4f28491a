"""Tables of tests: how many cases of each line were tried, and how many passed. A pytest plugin.

A test has the mark of a table with one of its lines, such as ``fault("disk full")``, and counts its cases with
``tally``. With the table's option, all cases are tried, and the table is printed and written to RESULTS_DIR.
"""

import csv
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest
from tabulate import tabulate

# mark -> (option, what the option does, name of the file)
TABLES = {
    "fault": ("--all-faults", "try every case of the faults, and print their table", "faults.csv"),
    "cluster": ("--clusters", "test with a real Slurm, Ray, PostgreSQL and S3, and print the table", "clusters.csv"),
}


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


def pytest_addoption(parser):
    for option, meaning, _ in TABLES.values():
        parser.addoption(option, action="store_true", help=meaning)


def pytest_configure(config):
    for mark in TABLES:
        config.addinivalue_line("markers", f"{mark}(line): the line of the table that a test counts for")


@pytest.fixture
def tally(request):
    """The tally of a test. Its report carries the result to the process that prints the table."""
    (mark,) = (mark for mark in request.node.iter_markers() if mark.name in TABLES)
    tally, started = Tally(request.config.getoption(TABLES[mark.name][0])), time.perf_counter()
    yield tally
    cases = (tally.tried, tally.survived, time.perf_counter() - started)
    request.node.user_properties.append((mark.name, (mark.args[0], *cases)))


def pytest_terminal_summary(terminalreporter, config):
    for mark, (option, _, name) in TABLES.items():
        if config.getoption(option):
            _print_table(terminalreporter, mark, name)


def _print_table(terminalreporter, mark: str, name: str) -> None:
    sums = defaultdict(lambda: [0, 0, 0.0])
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for table, (line, *cases) in report.user_properties if getattr(report, "when", "") == "teardown" else ():
            if table == mark:
                sums[line] = [total + more for total, more in zip(sums[line], cases, strict=True)]
    rows = [(mark, "tried", "survived", "lost", "seconds")]
    for line, (tried, survived, seconds) in sorted(sums.items()):
        rows.append((line, tried, survived, tried - survived, round(seconds)))
    terminalreporter.section(name)
    terminalreporter.write_line(tabulate(rows, headers="firstrow"))
    path = Path(os.environ.get("RESULTS_DIR", "results")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    terminalreporter.write_line(f"written to {path}")
