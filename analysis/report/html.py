"""The report's page: its parts, and how they become one HTML file that needs nothing beside it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from analysis.claims.verdicts import OUTCOMES
from analysis.tables.model import Best, Table

TEMPLATE = Path(__file__).with_name("template.html.j2")
DOTS_AN_INCH = 150  # of the pictures, as cskd.plots.save_figure writes them


class Link(str):
    """A text of a table that leads somewhere."""

    address: str

    def __new__(cls, text: str, address: str):
        made = super().__new__(cls, text)
        made.address = address
        return made


@dataclass(frozen=True)
class Picture:
    """A PNG with its size on the page, what it shows (alt) and what is to be known of it (caption)."""

    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of CSS, of which 96 make an inch."""
        with Image.open(io.BytesIO(self.png)) as image:
            return tuple(round(side * 96 / DOTS_AN_INCH) for side in image.size)


@dataclass(frozen=True)
class Chapter:
    """A heading with sentences, pictures and tables; ``folded`` tables open on a click."""

    anchor: str
    heading: str
    lead: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    sortable: bool = True  # one row a record, so that any order of the rows makes sense

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of its tables, each sentence once."""
        return tuple(dict.fromkeys(note for table in self.tables for note in table.notes))


@dataclass(frozen=True)
class Part:
    """What one pool of runs comes to."""

    anchor: str
    heading: str
    lead: tuple[str, ...]
    chapters: tuple[Chapter, ...]


@dataclass(frozen=True)
class StudyShown:
    heading: str
    message: str
    picture: Picture | None


@dataclass(frozen=True)
class Page:
    title: str
    lead: tuple[str, ...]
    parts: tuple[Part, ...]
    studies: tuple[StudyShown, ...] = ()
    notes: tuple[str, ...] = ()


def to_html(page: Page) -> str:
    """The whole page. The same page gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,  # names of classes, runs and datasets are texts, whatever is in them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        "best": lambda text: isinstance(text, Best),
        "link": lambda text: isinstance(text, Link),
        "outcome": lambda text: text.partition(" (")[0] in OUTCOMES,
    }
    return environment.get_template(TEMPLATE.name).render(page=page)
