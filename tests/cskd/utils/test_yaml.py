"""Invalid YAML raises a one-line UserError and never an exception of PyYAML."""

import pytest

from cskd.utils.errors import UserError
from cskd.utils.yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "file, line 2 is not YAML: key 'a' is given twice"),
        ("a: &x 1\nb: *x", r"file, line 2 is not YAML: aliases \(\*name\) are not supported"),
        ("a: !!int ''", r"file, line 1 is not YAML: tags \(tag:yaml.org,2002:int\) are not supported"),
        ("!!python/object/apply:os.system [x]", "tags"),
        ("[" * 60, "line 1 is not YAML: it is nested too deeply"),
        ("2001-02-31", "file contains an invalid value: day is out of range"),
    ],
)
def test_parse_yaml_raises_one_line_error(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_yaml(text, "file")
    assert "\n" not in str(caught.value)
