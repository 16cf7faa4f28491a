"""How numbers are printed, and how a table is written to the terminal, CSV, Markdown and LaTeX."""

import math
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.tables.model import Best, Block, Column, Table
from cskd.utils.numbers import number_text

HEADER_LINES = 3  # the maximum number of lines of a wrapped header
NO_TERMINAL_WIDTH = 100  # characters per line in a file or a pipe
WIDE_TERMINAL = 96  # characters from which columns are two spaces apart
LATEX_HEADER_WIDTH = 13  # characters
LATEX_FLOATS = 10  # LaTeX stops with an error if too many floats wait for a page

LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "\N{DAGGER}": r"$\dagger$",
    "\N{DOUBLE DAGGER}": r"$\ddagger$",
    "\N{SECTION SIGN}": r"\S{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{NO-BREAK SPACE}": "~",
} | {character: "\\" + character for character in "&%$#_{}"}


# Numbers


def interval_text(interval: tuple[float, float], decimals: int, *, sign: bool = False) -> str:
    """Return "[low, high]", or "" if the interval is unknown (NaN)."""
    if any(map(math.isnan, interval)):
        return ""
    low, high = (number_text(end, decimals, sign=sign) for end in interval)
    return f"[{low}, {high}]"


def count_text(number: int, planned: int) -> str:
    """Return the number of finished seeds, with the planned number if some are missing."""
    return str(number) if number == planned else f"{number}/{planned:.0f} seeds"


# CSV and Markdown


def to_csv(frame: pd.DataFrame) -> str:
    """Return the frame as CSV: 8 significant digits, NaN as an empty cell."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.8g")


def to_markdown(table: Table) -> str:
    """Return the table as a section of a Markdown document, without a heading if it has no title."""
    parts = [f"### {table.title}"] if table.title else []
    if table.intro:
        parts.append(to_markdown_text(" ".join(table.intro)))
    for block in table.blocks:
        if block.heading:
            parts.append(f"**{to_markdown_text(block.heading)}**")
        parts.append(markdown_rows(table.columns, block))
    if table.notes:
        parts.append(markdown_list(table.notes))
    return "\n\n".join(parts) + "\n"


def markdown_list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {to_markdown_text(sentence)}" for sentence in sentences)


def markdown_rows(columns: tuple[Column, ...], block: Block) -> str:
    """Return the rows of a block as a Markdown table, without the block's heading."""
    rows = pd.DataFrame(
        [[_markdown_cell(text) for text in row] for group in block.groups for row in group],
        columns=[to_markdown_text(column.header) for column in columns],
    )
    align = ["right" if column.number else "left" for column in columns]
    return rows.to_markdown(index=False, colalign=align, disable_numparse=True)


def markdown_link(path: Path, base: Path, text: str = "") -> str:
    """Return a link to a file from a document in the folder ``base``; its text is the path, if none is given."""
    address = Path(os.path.relpath(path.absolute(), base.absolute())).as_posix()
    return f"[{to_markdown_text(text or address)}]({address})"


def to_markdown_text(text: str) -> str:
    """Return the text with all Markdown syntax escaped."""
    escaped = re.sub(r"([\\|*_`<>])", r"\\\1", text)
    return escaped.replace("\N{NO-BREAK SPACE}", "&nbsp;")  # Markdown drops white space at a cell's edge


def _markdown_cell(text: str) -> str:
    return f"**{to_markdown_text(text)}**" if isinstance(text, Best) else to_markdown_text(text)


# LaTeX


def to_latex(table: Table) -> str:
    r"""Return one ``table`` float per block, for \input in a document with \usepackage{booktabs}."""
    lines = [r"% needs \usepackage{booktabs}"]
    for number, block in enumerate(table.blocks):
        if number and number % LATEX_FLOATS == 0:
            lines.append(r"\clearpage")
        notes = table.notes if block is table.blocks[-1] and not table.small else ()
        lines += _latex_block(table, block, notes)
    if table.notes and table.small:
        lines.append(rf"{{\footnotesize\noindent {' '.join(map(_latex, (f'{table.title}:', *table.notes)))}\par}}")
    return "\n".join(lines) + "\n"


def _latex_block(table: Table, block: Block, notes: tuple[str, ...]) -> list[str]:
    caption = f"{table.title}: {block.heading}" if block.heading else table.title
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{' '.join(map(_latex, (f'{caption}.', *table.intro)))}}}",
        *([r"\footnotesize", r"\setlength{\tabcolsep}{2.5pt}"] if table.small else []),
        rf"\begin{{tabular}}{{{''.join(map(_latex_alignment, table.columns))}}}",
        r"\toprule",
        " & ".join(map(_latex_header, table.columns)) + r" \\",
        r"\midrule",
    ]
    for number, group in enumerate(block.groups):
        if number:
            lines.append(r"\addlinespace")
        lines += [" & ".join(map(_latex_cell, row)) + r" \\" for row in group]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes:
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize"]
        lines += [" ".join(map(_latex, notes)), r"\end{minipage}"]
    return [*lines, r"\end{table}"]


def _latex_alignment(column: Column) -> str:
    if column.sentences:
        return r"p{0.2\linewidth}"
    return "r" if column.number else "l"


def _latex_header(column: Column) -> str:
    lines = _header_lines(column.header, LATEX_HEADER_WIDTH)
    if len(lines) == 1:
        return _latex(column.header)
    stacked = r"\\".join(map(_latex, lines))
    return rf"\shortstack[{'r' if column.number else 'l'}]{{{stacked}}}"


def _latex_cell(text: str) -> str:
    return rf"\textbf{{{_latex(text)}}}" if isinstance(text, Best) else _latex(text)


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return escaped.encode("ascii", "replace").decode()  # pdflatex stops at a character that it has no glyph for


# Terminal


def table_console() -> Console:
    """Return a console for tables, with a fixed width if the output is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=NO_TERMINAL_WIDTH)


def show(table: Table, console: Console) -> None:
    """Print the table. Long texts are wrapped; nothing is cut off on a terminal of 80 columns or more."""
    console.print(Text(table.title, style="bold"))
    if table.intro:
        console.print(Text(" ".join(table.intro)))
    for block in table.blocks:
        if block.heading:
            console.print(Text(f"\n{block.heading}", style="bold"))
        console.print(_terminal_block(table.columns, block, console.width))
    console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()


def _terminal_block(columns: tuple[Column, ...], block: Block, width: int) -> RichTable:
    padding = (0, 1 if width >= WIDE_TERMINAL else 0, 0, 0)
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    for index, column in enumerate(columns):
        widest = max((len(row[index]) for group in block.groups for row in group), default=0)
        drawn.add_column(
            "\n".join(_header_lines(column.header, widest)),
            justify="right" if column.number else "left",
            vertical="bottom",
            no_wrap=column.number,
            overflow="fold",
        )
    for number, group in enumerate(block.groups):
        if number:
            drawn.add_row()
        for row in group:
            drawn.add_row(*(Text(text, style="bold" if isinstance(text, Best) else "") for text in row))
    return drawn


def _header_lines(header: str, width: int) -> list[str]:
    """Return the header wrapped to ``width`` characters, or to more if it would need too many lines."""
    width = max(width, 1)
    while len(lines := textwrap.wrap(header, width, break_long_words=False)) > HEADER_LINES:
        width += 1
    return lines
