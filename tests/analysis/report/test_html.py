"""The page as text: escaping, marks and structure. test_report.py opens it in a browser."""

import io

import pandas as pd
from PIL import Image

from analysis.report.html import Chapter, Page, Part, Picture, StudySection, to_html
from analysis.tables.model import Best, Block, Column, Link, Outcome, Table, plain_table

HOSTILE = "<img src=x onerror=alert(1)> & 'co'"


def png(width=300, height=150) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(content, "png")
    return content.getvalue()


def page(*tables: Table, **chapter) -> str:
    part = Part("mini", "Profile mini", ("Lead.",), (Chapter("one", "First", tables=tables, **chapter),))
    return to_html(Page("Title", ("Lead.",), (part,)))


def table(*rows) -> Table:
    return plain_table("T", (Column("name"), Column("value", number=True)), rows, pd.DataFrame(), ("After.",))


def test_every_text_is_escaped():
    cells = ((HOSTILE,), (Best(HOSTILE),), (Link(HOSTILE, HOSTILE),))
    hostile = Table(HOSTILE, (Column(HOSTILE),), (Block(HOSTILE, (cells,)),), pd.DataFrame(), (HOSTILE,), (HOSTILE,))
    picture = Picture(png(), HOSTILE, HOSTILE)
    chapter = Chapter("c", HOSTILE, (HOSTILE,), (picture,), (hostile,), (hostile,))
    study = StudySection(HOSTILE, HOSTILE, picture)
    part = Part("p", HOSTILE, (HOSTILE,), (chapter,))
    text = to_html(Page(HOSTILE, (HOSTILE,), (part,), (study,), (HOSTILE,)))
    assert "<img src=x" not in text
    assert text.count("<img ") == 2
    assert text.count("&lt;img src=x onerror=alert(1)&gt; &amp; &#39;co&#39;") > 20


def test_rows_of_a_sortable_table_repeat_the_name_of_their_group():
    groups = (("claim", "1"), ("", "2")), (("other", "3"),)
    grouped = Table("T", (Column("a"), Column("b")), (Block("head", groups),), pd.DataFrame())
    sortable, fixed = page(grouped), page(grouped, sortable=False)
    assert (sortable.count("<td>claim</td>"), sortable.count('class="sortable"')) == (2, 1)
    assert (fixed.count("<td>claim</td>"), fixed.count('class="sortable"')) == (1, 0)


def test_best_values_links_and_outcomes_are_marked():
    text = page(
        table(
            ("a", Best("1.0")),
            (Link("run", "http://127.0.0.1:5000/#/x"), "2.0"),
            (Outcome("holds", " (mini)"), Outcome("not run")),
        )
    )
    assert "<b>1.0</b>" in text
    assert '<a href="http://127.0.0.1:5000/#/x">run</a>' in text
    assert '<span class="outcome holds">holds (mini)</span>' in text
    assert '<span class="outcome not-run">not run</span>' in text


def test_empty_table_and_empty_notes_are_explained():
    assert "Nothing to show." in page(table())
    assert "Nothing: every run is finished" in page(table(("a", "1")))
    assert "a note" in to_html(Page("T", (), (), (), ("a note",)))


def test_pictures_are_embedded_with_their_size():
    picture = Picture(png(300, 150), "alternative text", "caption")
    assert picture.size == (192, 96)
    text = page(pictures=(picture,))
    assert 'alt="alternative text" width="192" height="96"' in text
    assert "data:image/png;base64," + picture.base64 in text


def test_page_is_reproducible_and_loads_no_address():
    text = page(table(("a", "1")))
    assert text == page(table(("a", "1")))
    assert "http" not in text
    assert "@import" not in text
    assert " src=" not in text.replace('src="data:', "")
