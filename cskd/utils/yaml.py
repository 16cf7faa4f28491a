"""Reading of the project's YAML files, with one-line errors. Needs PyYAML, which training does not."""

from pathlib import Path
from typing import Any

import yaml

from cskd.utils.errors import UserError

MAX_DEPTH = 50  # levels of nesting


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises UserError with the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: it is not UTF-8 text ({error.reason})") from error
    return parse_yaml(text, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises UserError, with the line, for anything else."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Return the content of a YAML text. Raises UserError with ``where`` and the line."""
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}{line} is not YAML: {problem}") from error
    except ValueError as error:  # such as a number with thousands of digits, or 31 February
        raise UserError(f"{where} contains an invalid value: {error}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader without the features that the project's files do not need.

    It rejects duplicate keys; aliases, which can expand without limit; tags, whose constructors raise arbitrary
    exceptions; and deep nesting, which takes the scanner seconds.
    """

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", event.start_mark)
        if event.tag is not None:
            raise yaml.composer.ComposerError(None, None, f"tags ({event.tag}) are not supported", event.start_mark)
        if self.depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    message = f"key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)
