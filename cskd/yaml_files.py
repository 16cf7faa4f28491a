"""YAML files of the project, read with errors of one line. Needs PyYAML, which training does not."""

from pathlib import Path
from typing import Any

import yaml

from cskd.errors import UserError


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, or a UserError that names the file and the line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line} is not YAML: {getattr(error, 'problem', error)}") from error
