"""The tests of ``make test-clusters`` (``--clusters``), with real services on this machine. ``make test`` skips them.

A test has the mark ``cluster`` with a line of the table of ``tally.py``, and counts its cases with ``tally``. The tests
of a file run in one process (``--dist loadfile``), one after the other, and share its cluster.
"""

from pathlib import Path

import pytest
from faults.disturbed import DEMO, Disturbed
from place import Place, make_once

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--clusters"):
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="only in make test-clusters"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Place:
    """The ten runs of the demo, trained by a launch on this machine."""

    def train(folder: Path) -> None:
        status, output, errors = Disturbed(folder).call(*DEMO)
        assert (status, errors) == (0, ""), output

    return Place(make_once(tmp_path_factory, "undisturbed demo", train))
