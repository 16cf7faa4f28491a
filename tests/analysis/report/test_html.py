"""The page as text: escaping, marks and structure. test_report.py opens it in a browser."""

import io

import pandas as pd
from builders import HOSTILE
from PIL import Image

from analysis.report.html import Chapter, Page, Part, Picture, StudySection, to_html
from analysis.tables.model import Best, Block, Column, Link, Outcome, Table

ANSWER = Chapter("answer", "Answer")


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (300, 150), "white").save(content, "png")
    return content.getvalue()


def page(*tables: Table, **chapter) -> str:
    part = Part("mini", "Profile mini", ("Lead.",), (Chapter("one", "First", tables=tables, **chapter),))
    return to_html(Page("Title", ("Lead.",), ANSWER, (part,)))


def table(*groups) -> Table:
    blocks = (Block("head", groups),) if groups else ()
    return Table("T", (Column("name"), Column("value", number=True)), blocks, pd.DataFrame())


def test_every_text_is_escaped():
    text = f"{HOSTILE} & 'co'"
    cells = ((text,), (Best(text),), (Link(text, text),))
    hostile = Table(text, (Column(text),), (Block(text, (cells,)),), pd.DataFrame(), (text,), (text,))
    picture = Picture(png(), text, text)
    chapter = Chapter("c", text, (text,), (picture,), (hostile,), (hostile,))
    part = Part("p", text, (text,), (chapter,))
    found = to_html(Page(text, (text,), ANSWER, (part,), (StudySection(text, text, picture),)))
    assert "<img src=x" not in found
    assert found.count("<img ") == 2
    assert found.count("&lt;img src=x onerror=document.title=&#39;owned&#39;&gt; &amp; &#39;co&#39;") > 20


def test_rows_of_a_sortable_table_repeat_the_name_of_their_group():
    grouped = table((("claim", "1"), ("", "2")), (("other", "3"),))
    sortable, fixed = page(grouped), page(grouped, sortable=False)
    assert (sortable.count(">claim</td>"), sortable.count('class="sortable"')) == (2, 1)
    assert (fixed.count(">claim</td>"), fixed.count('class="sortable"')) == (1, 0)


def test_part_without_chapters_is_one_line():
    text = to_html(Page("Title", (), ANSWER, (Part("demo", "Demo: not run", ("Runs: none begun.",)),)))
    assert "<b>Demo: not run.</b> Runs: none begun.</p>" in text


def test_best_values_links_outcomes_and_empty_tables_are_marked():
    rows = (
        ("a", Best("1.0")),
        (Link("run", "http://127.0.0.1:5000/#/x"), "2.0"),
        (Outcome("holds", " (mini)"), Outcome("not run")),
    )
    text = page(table(rows), table())
    assert "<b>1.0</b>" in text
    assert '<a href="http://127.0.0.1:5000/#/x">run</a>' in text
    assert '<span class="outcome holds">holds</span>' in text
    assert '<span class="outcome not-run">not run</span>' in text
    assert "Nothing to show." in text
