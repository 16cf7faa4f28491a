"""Numbers as text, and the output formats of a table."""

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from analysis.tables.format import interval_text, show, to_latex, to_markdown
from analysis.tables.model import Best, Block, Column, Table
from cskd.utils.numbers import COMPACT, mean_std_text, number_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number_text(-1.006, 2), "\N{MINUS SIGN}1.01"),
        (number_text(10, 1, sign=True, unit=" %"), "+10.0 %"),
        (number_text(math.nan, 2), "\N{EN DASH}"),
        (mean_std_text(22.25, 0.125, 2), "22.25 ± 0.12"),
        (mean_std_text(22.25, 0.125, 1, separator=COMPACT, n=3), "22.2±0.1 (n=3)"),
        (mean_std_text(22.25, math.nan, 2), "22.25"),
        (interval_text((-1.0, 2.0), 1, sign=True), "[\N{MINUS SIGN}1.0, +2.0]"),
        (interval_text((math.nan, 2.0), 1), ""),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


def table(*rows):
    return Table("T_1", (Column("a|b"), Column("c")), (Block("", (rows,)),), pd.DataFrame())


def test_special_characters_are_escaped():
    escaped = r"50 \% of a\_b \& \$c\textbackslash{}d \{e\} \#\textasciitilde{}\textasciicircum{} 1 $\pm$ 2"
    made = table((r"50 % of a_b & $c\d {e} #~^ 1 ± 2", "x | y *z*"))
    assert escaped in to_latex(made)
    assert r"x \| y \*z\*" in to_markdown(made)
    assert r"a\|b" in to_markdown(made)


def test_best_value_is_bold_in_every_format():
    made = table((Best("1±2*"), "\N{NO-BREAK SPACE}3"))
    assert r"\textbf{1$\pm$2*} & ~3 \\" in to_latex(made)
    assert r"| **1±2\*** | &nbsp;3" in to_markdown(made)
    output = io.StringIO()
    show(made, Console(file=output, force_terminal=True, color_system="standard"))
    assert "\x1b[1m1±2*\x1b[0m" in output.getvalue()
