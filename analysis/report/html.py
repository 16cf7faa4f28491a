"""The content of the report as data classes, and its rendering as one self-contained HTML file."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from analysis.tables.model import Best, Link, Outcome, Table

TEMPLATE = Path(__file__).with_name("template.html.j2")
PICTURE_DPI = 150  # of cskd.plots.save_figure
CSS_DPI = 96
MAX_UNSTACKED = 3  # columns of a table that fits the width of a phone


@dataclass(frozen=True)
class Picture:
    """A drawing with its alternative text and its caption. drawing: an SVG element, or a PNG."""

    drawing: str | bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """The PNG in base 64."""
        return base64.b64encode(self.drawing).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the PNG in CSS pixels."""
        with Image.open(io.BytesIO(self.drawing)) as image:
            return tuple(round(side * CSS_DPI / PICTURE_DPI) for side in image.size)


@dataclass(frozen=True)
class Chapter:
    """A heading with sentences, pictures and tables. ``folded`` tables open on a click.

    sortable: the rows are independent records, so the reader may sort them.
    """

    anchor: str
    heading: str
    lead: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    sortable: bool = True

    @property
    def is_empty(self) -> bool:
        return not (self.pictures or self.tables or self.folded)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of its tables, each sentence once."""
        return tuple(dict.fromkeys(note for table in self.tables for note in table.notes))


@dataclass(frozen=True)
class Part:
    """The results of one pool of runs. A part without chapters is one line: its heading and ``lead``."""

    anchor: str
    heading: str
    lead: tuple[str, ...]
    chapters: tuple[Chapter, ...] = ()


@dataclass(frozen=True)
class StudySection:
    """The result of one tuning or ablation study."""

    heading: str
    text: str
    picture: Picture | None


@dataclass(frozen=True)
class Page:
    title: str
    lead: tuple[str, ...]
    answer: Chapter
    parts: tuple[Part, ...]
    studies: tuple[StudySection, ...] = ()
    notes: tuple[str, ...] = ()


def to_html(page: Page) -> str:
    """Return the page as HTML. The same page gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,  # names of classes, runs and datasets may contain markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["MAX_UNSTACKED"] = MAX_UNSTACKED
    environment.tests |= {
        "best": lambda text: isinstance(text, Best),
        "link": lambda text: isinstance(text, Link),
        "outcome": lambda text: isinstance(text, Outcome),
    }
    return environment.get_template(TEMPLATE.name).render(page=page)
