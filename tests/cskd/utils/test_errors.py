"""Messages of one line: the root cause of an exception."""

from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

import pytest

from cskd.utils.errors import UserError, root_cause


def chained(*errors: Exception) -> Exception:
    """Return the last error, each caused by the one before."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (chained(OSError("disk"), ValueError("bad"), RuntimeError("backend raised:")), "OSError: disk"),
        (chained(OSError("disk"), UserError("set RUNS_DIR"), RuntimeError("failed")), "set RUNS_DIR"),
        (chained(OSError("http://a:secret@b is away"), RuntimeError()), "OSError: http://***@b is away"),
    ],
)
def test_root_cause_of_a_chain_is_one_line(error, expected):
    assert root_cause(error) == expected


def fail() -> None:
    try:
        raise OSError("no space")
    except OSError as error:
        raise RuntimeError("cannot load\nan image") from error


def test_root_cause_is_found_in_the_text_of_another_process():
    with ProcessPoolExecutor(1) as process, pytest.raises(RuntimeError) as caught:
        process.submit(fail).result()
    assert root_cause(caught.value) == "OSError: no space"
