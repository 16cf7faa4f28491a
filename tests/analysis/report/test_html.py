"""The page as text: everything is escaped, marked and in its place; what a browser makes of it is test_report's."""

import io

import pandas as pd
from PIL import Image

from analysis.report.html import Chapter, Link, Page, Part, Picture, StudyShown, to_html
from analysis.tables.model import Best, Block, Column, Table

EVIL = "<img src=x onerror=alert(1)> & 'co'"


def png(width=300, height=150) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(content, "png")
    return content.getvalue()


def page(table: Table, **chapter) -> str:
    part = Part("mini", "Profile mini", ("What it is.",), (Chapter("one", "First", tables=(table,), **chapter),))
    return to_html(Page("Title", ("Lead.",), (part,)))


def table(*rows, headers=("name", "value")) -> Table:
    columns = (Column(headers[0]), Column(headers[1], number=True))
    return Table("T", columns, (Block("", (tuple(rows),)),), pd.DataFrame(), ("Before.",), ("After.",))


def test_texts_are_escaped_wherever_they_stand():
    hostile = Table(
        EVIL, (Column(EVIL),), (Block(EVIL, (((EVIL,), (Best(EVIL),), (Link(EVIL, EVIL),)),)),), None, (EVIL,), (EVIL,)
    )
    picture = Picture(png(), EVIL, EVIL)
    chapter = Chapter("c", EVIL, (EVIL,), (picture,), (hostile,), (hostile,))
    study = StudyShown(EVIL, EVIL, picture)
    text = to_html(Page(EVIL, (EVIL,), (Part("p", EVIL, (EVIL,), (chapter,)),), (study,), (EVIL,)))
    assert "<img src=x" not in text
    assert text.count("<img ") == 2
    assert text.count("&lt;img src=x onerror=alert(1)&gt; &amp; &#39;co&#39;") > 20


def test_a_row_that_may_be_moved_says_all_that_it_is_of():
    rows = (("claim", "1"), ("", "2")), (("other", "3"),)
    groups = Table("T", (Column("a"), Column("b")), (Block("head", rows),), pd.DataFrame())
    assert page(groups).count("<td>claim</td>") == 2
    assert page(groups, sortable=False).count("<td>claim</td>") == 1


def test_the_best_is_bold_a_link_leads_somewhere_and_an_outcome_has_its_mark():
    text = page(table(("a", Best("1.0")), (Link("run", "http://127.0.0.1:5000/#/x"), "2.0"), ("holds", "not run")))
    assert "<b>1.0</b>" in text
    assert '<a href="http://127.0.0.1:5000/#/x">run</a>' in text
    assert '<span class="outcome holds">holds</span>' in text
    assert '<span class="outcome not-run">not run</span>' in text


def test_only_tables_of_one_row_a_record_can_be_sorted():
    assert 'class="sortable"' in page(table(("a", "1")))
    assert 'class="sortable"' not in page(table(("a", "1")), sortable=False)


def test_a_table_without_rows_says_so():
    assert "Nothing to show." in page(Table("T", (Column("a"),), (), pd.DataFrame()))


def test_pictures_are_inside_and_have_their_size():
    picture = Picture(png(300, 150), "what it shows", "what it means")
    assert picture.size == (192, 96)
    text = to_html(Page("T", (), (Part("p", "P", (), (Chapter("c", "C", pictures=(picture,)),)),)))
    assert 'alt="what it shows" width="192" height="96"' in text
    assert "data:image/png;base64," + picture.base64 in text


def test_the_page_asks_for_nothing_from_elsewhere():
    text = page(table(("a", "1")))
    assert "http" not in text
    assert "@import" not in text
    assert " src=" not in text.replace('src="data:', "")


def test_the_same_page_is_the_same_text():
    assert page(table(("a", "1"))) == page(table(("a", "1")))


def test_nothing_left_out_is_said_as_well():
    assert "Nothing: every run of this page is finished" in page(table(("a", "1")))
    assert "a note" in to_html(Page("T", (), (), (), ("a note",)))
