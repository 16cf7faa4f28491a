"""Command lines that are not valid end with one line that says what to do."""

import pytest


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tables --experiment table1 --show table1", "table1: needs all experiments; leave out --experiment"),
        ("tables --show table7", "unknown table 'table7'"),
        (
            "tables --experiment table1 --results-dir FILE",
            "cannot be written (Not a directory): set RESULTS_DIR",
        ),
        ("paired table1 table1", "table1 is compared with itself: give two experiments"),
        ("paired table1", "table1: give two experiments, or one experiment and two of its methods"),
        ("paired table1 --methods cs-kd cs-kd", "cs-kd is compared with itself: give two methods"),
        ("paired table1 --methods cross-entropy cskd", "unknown method of table1 'cskd': did you mean cs-kd?"),
        ("measured --pool minni", "unknown pool 'minni': did you mean mini?"),
        ("measured --measured-dir FILE", "cannot be written (File exists): set RESULTS_DIR, --results-dir or"),
        ("measured --experiment table1 --pool demo", "unknown pool 'demo': choose from paper"),
    ],
)
def test_invalid_command_line_is_a_one_line_error(call_stored, command, message):
    name, *arguments = (__file__ if part == "FILE" else part for part in command.split())
    status, _, errors = call_stored(f"analysis {name}", *arguments)
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors
