"""One table in four forms."""

import os
import re
import textwrap
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.tables.model import Best, Block, Column, Table

HEADER_LINES = 3  # that a long header may take, rather than making its column wider
WIDE = 96  # characters of a terminal on which columns stand two spaces apart
LATEX_COLUMN = 13  # characters of a header's line in LaTeX
FLOATS = 10  # tables that LaTeX is asked to hold back at most

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
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{NO-BREAK SPACE}": "~",
} | {character: "\\" + character for character in "&%$#_{}"}


def to_csv(frame: pd.DataFrame) -> str:
    """The numbers, to 8 digits; empty where there is none."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.8g")


def to_markdown(table: Table) -> str:
    """A section of a Markdown document."""
    parts = [f"### {table.title}"]
    if table.intro:
        parts.append(to_markdown_text(" ".join(table.intro)))
    for block in table.blocks:
        if block.heading:
            parts.append(f"**{to_markdown_text(block.heading)}**")
        parts.append(markdown_rows(table.columns, block))
    if table.notes:
        parts.append("\n".join(f"- {to_markdown_text(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def markdown_rows(columns: tuple[Column, ...], block: Block) -> str:
    """The rows of a block, without its heading."""
    rows = pd.DataFrame(
        [[_markdown_cell(text) for text in row] for group in block.groups for row in group],
        columns=[to_markdown_text(column.header) for column in columns],
    )
    align = ["right" if column.number else "left" for column in columns]
    return rows.to_markdown(index=False, colalign=align, disable_numparse=True)


def markdown_link(path: Path, base: Path) -> str:
    """A link to a file from a document in the folder ``base``."""
    address = Path(os.path.relpath(path.absolute(), base.absolute())).as_posix()
    return f"[{to_markdown_text(address)}]({address})"


def to_latex(table: Table) -> str:
    r"""One ``table`` a block, the notes below the last, for \input in a document with \usepackage{booktabs}."""
    lines = [r"% needs \usepackage{booktabs}"]
    for number, block in enumerate(table.blocks):
        if number and number % FLOATS == 0:
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
        rf"\begin{{tabular}}{{{''.join(map(_latex_column, table.columns))}}}",
        r"\toprule",
        " & ".join(_latex_header(column.header, column.number) for column in table.columns) + r" \\",
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


def _latex_column(column: Column) -> str:
    if column.sentences:
        return r"p{0.2\linewidth}"
    return "r" if column.number else "l"


def show(table: Table, console: Console) -> None:
    """Print the table, readable from 80 columns on; nothing is cut off."""
    console.print(Text(table.title, style="bold"))
    if table.intro:
        console.print(Text(" ".join(table.intro)))
    for block in table.blocks:
        if block.heading:
            console.print(Text(f"\n{block.heading}", style="bold"))
        padding = (0, 1 if console.width >= WIDE else 0, 0, 0)  # besides the one space of the box
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
        least, most = zip(*(_widths(column, block, index) for index, column in enumerate(table.columns)), strict=True)
        if any(column.sentences for column in table.columns):
            most = _shared(table.columns, least, most, console.width - (1 + padding[1]) * (len(least) - 1))
        for column, narrowest, widest in zip(table.columns, least, most, strict=True):
            drawn.add_column(
                column.header,
                justify="right" if column.number else "left",
                vertical="bottom",
                min_width=min(narrowest, widest),
                max_width=widest,
                overflow="fold",
            )
        for number, group in enumerate(block.groups):
            if number:
                drawn.add_row()
            for row in group:
                drawn.add_row(*(Text(text, style="bold" if isinstance(text, Best) else "") for text in row))
        console.print(drawn)
    console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()


def _widths(column: Column, block: Block, index: int) -> tuple[int, int]:
    """The least width at which nothing is cut off, and the one at which texts need no break."""
    texts = [row[index] for group in block.groups for row in group]
    widest = max(map(len, texts), default=0)
    words = max((len(word) for text in texts for word in text.split()), default=0)
    return widest if column.number else words, max(widest, *map(len, _header_lines(column.header, widest)))


def _shared(columns: tuple[Column, ...], least: tuple[int, ...], most: tuple[int, ...], width: int) -> tuple[int, ...]:
    """``most`` made to fit into ``width``: sentences are broken first, then other texts, then sentences' long words."""
    widths = list(most)
    for sentences, floor in ((True, least), (False, least), (True, [1] * len(least))):
        for _ in range(sum(widths) - width):
            breakable = [
                index
                for index, column in enumerate(columns)
                if column.sentences == sentences and widths[index] > floor[index]
            ]
            if breakable:
                widths[max(breakable, key=widths.__getitem__)] -= 1
    return tuple(widths)


def _header_lines(header: str, width: int) -> list[str]:
    """The header in few lines, of ``width`` characters or as many more as that takes."""
    width = max(width, 1)
    while len(lines := textwrap.wrap(header, width, break_long_words=False)) > HEADER_LINES:
        width += 1
    return lines


def to_markdown_text(text: str) -> str:
    """The text as itself, nothing in it taken for Markdown."""
    escaped = re.sub(r"([\\|*_`<>])", r"\\\1", text)
    return escaped.replace("\N{NO-BREAK SPACE}", "&nbsp;")  # white space at a cell's edge would be lost


def _markdown_cell(text: str) -> str:
    return f"**{to_markdown_text(text)}**" if isinstance(text, Best) else to_markdown_text(text)


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    # what pdflatex has no glyph for would stop it
    return escaped.encode("ascii", "replace").decode()


def _latex_cell(text: str) -> str:
    return rf"\textbf{{{_latex(text)}}}" if isinstance(text, Best) else _latex(text)


def _latex_header(text: str, number: bool) -> str:
    lines = _header_lines(text, LATEX_COLUMN)
    if len(lines) == 1:
        return _latex(text)
    stacked = r"\\".join(map(_latex, lines))
    return rf"\shortstack[{'r' if number else 'l'}]{{{stacked}}}"
