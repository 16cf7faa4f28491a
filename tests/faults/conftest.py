"""Fixtures of the faults. ``make test`` tries a few cases, ``make test-faults`` (``--all-faults``) all."""

from pathlib import Path

import pytest
from faults.disturbed import GRID, Disturbed
from place import Place, make_once


def pytest_configure(config):
    config.addinivalue_line("markers", "slow_fault: only in make test-faults")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow_fault") and not config.getoption("--all-faults"):
            item.add_marker(pytest.mark.skip(reason="only in make test-faults"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Place:
    """The trained grid with seeds 0 to 3, with which disturbed ones are compared."""

    def train(folder: Path) -> None:
        place = Disturbed(folder, *GRID, "--seeds", "0", "1", "2", "3")
        status, output, errors = place.call(*place.command)
        assert (status, errors) == (0, ""), output

    return Place(make_once(tmp_path_factory, "undisturbed", train))
