"""Options of all tests."""


def pytest_addoption(parser):
    parser.addoption("--all-faults", action="store_true", help="every case of the faults, and their table")
