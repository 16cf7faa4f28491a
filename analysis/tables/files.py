"""Tables as files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.tables.format import to_csv, to_latex, to_markdown
from analysis.tables.model import Table
from cskd.utils.errors import UserError
from cskd.utils.files import atomic_write


def save_table(folder: Path, name: str, table: Table) -> None:
    """Write the table as CSV, Markdown and LaTeX."""
    for ending, text in (("csv", to_csv(table.frame)), ("md", to_markdown(table)), ("tex", to_latex(table))):
        save_text(folder / f"{name}.{ending}", text)


def save_text(path: Path, text: str) -> None:
    with atomic_write(path, durable=False) as file:
        file.write(text.encode())


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Create the folder; turn an OSError of the body into a UserError that names the file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise UserError(f"{where}: set RESULTS_DIR or --results-dir") from error
