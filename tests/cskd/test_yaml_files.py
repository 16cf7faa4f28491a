"""YAML that is refused in one line, and no exception of PyYAML's own."""

import time

import pytest

from cskd.utils.errors import UserError
from cskd.utils.yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "here, line 2 is not YAML: key 'a' is given twice"),
        ("a: &x 1\nb: *x", r"here, line 2 is not YAML: aliases \(\*name\) are not taken"),
        ("a: !!int ''", r"here, line 1 is not YAML: tags \(tag:yaml.org,2002:int\) are not taken"),
        ("!!bool x", r"tags \(tag:yaml.org,2002:bool\)"),
        ("!!timestamp x", r"tags \(tag:yaml.org,2002:timestamp\)"),
        ("! x", "tags"),
        ("!!python/object/apply:os.system [x]", "tags"),
        ("[" * 51 + "]" * 51, "line 1 is not YAML: it is nested too deeply"),
        ("- " * 51 + "x", "it is nested too deeply"),
        ("2001-02-31", "here is not understood: day is out of range"),
        ("9" * 5000, "here is not understood"),
        ("{[a]: 1}", "found unhashable key"),
        ("\x07", "special characters are not allowed"),
    ],
)
def test_what_no_file_needs_is_refused(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)


def test_nesting_without_end_is_not_read_to_its_end():
    started = time.process_time()
    with pytest.raises(UserError, match="nested too deeply"):
        parse_yaml("[" * 20_000, "here")
    assert time.process_time() - started < 10


def test_deep_enough_for_a_file_is_taken():
    assert parse_yaml("[" * 20 + "1" + "]" * 20, "here")
