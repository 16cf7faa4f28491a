"""Launch options that are shared by the commands that train grids and studies."""

from argparse import Namespace
from dataclasses import dataclass, fields
from typing import Any, Self

from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from experiments.launch.backends import BACKENDS

MAX_WORKERS = 1000


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of every launch."""

    profile: str | None = None  # None: the recipe's default
    overrides: tuple[str, ...] = ()  # "key=value": settings changed from the recipe
    workers: int = 1  # runs at once
    launcher: str = "local"
    retry: bool = False  # run failed runs or trials again
    dry_run: bool = False  # print the plan or the budget, and train nothing

    def __post_init__(self):
        check_range("WORKERS", self.workers, MAX_WORKERS)
        check_choice("launcher", self.launcher, BACKENDS)

    @classmethod
    def from_arguments(cls, arguments: Namespace, **more: Any) -> Self:
        """Return the options that a command line and ``more`` set."""
        values = {field.name: getattr(arguments, field.name) for field in fields(cls) if field.name in arguments}
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values | tuples | more)


def check_range(variable: str, value: int, maximum: int) -> None:
    """Raise UserError unless 1 <= value <= maximum."""
    if not 1 <= value <= maximum:
        raise UserError(f"{variable} must be from 1 to {maximum}, not {value}")
