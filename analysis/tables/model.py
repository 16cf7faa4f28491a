"""The content of a table, independent of its output format."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

Row = tuple[str, ...]


class Best(str):
    """A cell's text in bold: the best value of its column."""


class Outcome(str):
    """The outcome of a verdict, with more text in the cell: ``Outcome("holds", " (mini)")``."""

    outcome: str

    def __new__(cls, outcome: str, more: str = ""):
        text = super().__new__(cls, outcome + more)
        text.outcome = outcome
        return text


class Link(str):
    """A cell's text with a hyperlink."""

    address: str

    def __new__(cls, text: str, address: str):
        link = super().__new__(cls, text)
        link.address = address
        return link


@dataclass(frozen=True)
class Column:
    header: str
    number: bool = False  # aligned right, never wrapped
    sentences: bool = False  # wrapped first if space is scarce


@dataclass(frozen=True)
class Block:
    """Rows under one heading. Groups of rows are separated by space."""

    heading: str
    groups: tuple[tuple[Row, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table as text (``intro``, ``blocks``, ``notes``) and as numbers (``frame``).

    small: the table is wide, so LaTeX sets it in small type and prints the notes outside the float.
    """

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    frame: pd.DataFrame
    intro: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    small: bool = False


def plain_table(
    title: str, columns: Iterable[Column], rows: Sequence[Row], frame: pd.DataFrame, notes: Iterable[str] = ()
) -> Table:
    """Return a table of one block without a heading, or without a block if there are no rows."""
    blocks = (Block("", (tuple(rows),)),) if rows else ()
    return Table(title, tuple(columns), blocks, frame, notes=tuple(notes))


def name_once(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return a group of rows in which only the first row shows the first column."""
    return tuple(("", *row[1:]) if index else row for index, row in enumerate(rows))
