"""Figures as SVG elements of the page, whose colours follow its light or dark theme."""

import io
import re

import matplotlib
from matplotlib.figure import Figure

from cskd.plots import FAINT, INK

THEME = {"#000000": "currentColor", INK: "currentColor", FAINT: "var(--faint)", "#ffffff": "var(--paper)"}
COORDINATES = re.compile(r' (?:d|x|y|transform)="[^"]*"')


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element without a background. Equal figures with equal names give equal text.

    Black, grey and white become the colours of the page's theme; text stays text. name: makes the element's ids differ
    from those of other figures on the page.
    """
    file = io.StringIO()
    rules = {"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(rules):
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # the page has its rule
    text = COORDINATES.sub(lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    for color, themed in THEME.items():
        text = text.replace(color, themed)
    return text
