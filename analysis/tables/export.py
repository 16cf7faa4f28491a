"""Tables as files."""

from pathlib import Path

from analysis.tables.format import to_csv, to_latex, to_markdown
from analysis.tables.model import Table
from cskd.utils.files import atomic_write


def save_table(folder: Path, name: str, table: Table) -> None:
    """The table in its three written forms: CSV, Markdown, LaTeX."""
    for ending, text in (("csv", to_csv(table.frame)), ("md", to_markdown(table)), ("tex", to_latex(table))):
        save_text(folder / f"{name}.{ending}", text)


def save_text(path: Path, text: str) -> None:
    with atomic_write(path, durable=False) as file:
        file.write(text.encode())
