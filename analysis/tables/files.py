"""Tables and figures as files."""

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.tables.format import to_csv, to_latex, to_markdown
from analysis.tables.model import Table
from cskd.utils.errors import UserError
from cskd.utils.files import atomic_write
from cskd.utils.integrity import read_json, source_digest, write_json

if TYPE_CHECKING:  # matplotlib is imported only if a figure is drawn
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
CODE = ("analysis/**/*.py", "cskd/**/*.py", "requirements.lock")  # what can change a figure of equal arrays
Drawing = partial  # a function that returns a figure, and its arguments: called only if they have changed


def save_table(folder: Path, name: str, table: Table) -> None:
    """Write the table as CSV, Markdown and LaTeX."""
    for ending, text in (("csv", to_csv(table.frame)), ("md", to_markdown(table)), ("tex", to_latex(table))):
        save_text(folder / f"{name}.{ending}", text)


def save_text(path: Path, text: str) -> None:
    with atomic_write(path, durable=False) as file:
        file.write(text.encode())


def save_drawing(
    drawing: Drawing, paths: Sequence[Path], record: Path, to_text: Callable[["Figure"], str] = lambda figure: ""
) -> str:
    """Draw a figure, write it to the paths, and return it as text; do nothing of this if it was drawn before.

    Args:
        drawing: its arguments can be pickled.
        record: a file for the text, and for a digest of everything that the figure depends on.
        to_text: renders the figure, before it is written to the paths.
    """
    digest = hashlib.sha256(pickle.dumps(drawing) + _code().encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError):
        drawn = read_json(record)
        if drawn["digest"] == digest and all(path.is_file() for path in paths):
            return drawn["text"]
    record.unlink(missing_ok=True)  # from here on, the paths may have another figure
    from cskd.plots import save_figure  # noqa: PLC0415 - see above

    figure = drawing()
    text = to_text(figure)
    for path in paths:
        save_figure(figure, path)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"digest": digest, "text": text}, durable=False)
    return text


@cache
def _code() -> str:
    return source_digest(ROOT, CODE)


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Create the folder; turn an OSError of the body into a UserError that names the file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise UserError(f"{where}: set RESULTS_DIR or --results-dir") from error
