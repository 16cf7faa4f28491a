"""A table before it has a form: the same content for the terminal, CSV, Markdown and LaTeX."""

from dataclasses import dataclass

import pandas as pd

ABSENT = "\N{EN DASH}"  # where there is no number to show


def signed(text: str) -> str:
    """A formatted number with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


class Best(str):
    """A text that is the best of its kind: set in bold."""


@dataclass(frozen=True)
class Column:
    header: str
    number: bool = False  # set flush right and never broken
    sentences: bool = False  # broken into lines where space is scarce


@dataclass(frozen=True)
class Block:
    """Rows under one heading. ``groups``: rows of texts that belong together, with space between groups."""

    heading: str
    groups: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class Table:
    """A title, sentences before the table, blocks of rows, notes below; ``frame`` has the plain numbers."""

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    frame: pd.DataFrame
    intro: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    small: bool = (
        False  # many columns and lines: in LaTeX of smaller type, the notes on the page rather than in a float
    )
