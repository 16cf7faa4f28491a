"""The generated tables of the documentation: the text between two markers.

A table is between the lines ``<!-- begin generated: KIND NAME -->`` and ``<!-- end generated -->``. Kinds: ``results
POOL``, ``verdicts POOL``, ``bench TABLE``, and ``answer``, the README's table.
"""

import re
from collections.abc import Callable
from pathlib import Path

from analysis.measured.bench_tables import bench
from analysis.measured.results_tables import answer, results, verdicts
from analysis.tables.export import save_text
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError, first_line

BEGIN, END = re.compile(r"<!-- begin generated: (.+) -->"), "<!-- end generated -->"
EXAMPLE = "<!-- begin generated: results mini -->"
KINDS = {"results": results, "verdicts": verdicts, "bench": bench}
ANSWER = "answer"


def update(path: Path, folder: Path, check: bool) -> list[str]:
    """Regenerate the tables of a document; return the names of the tables that changed.

    folder: of the measured CSV files. check: write nothing. Raises UserError if the document cannot be read, has no
    marker or a marker without its counterpart.
    """
    try:
        before = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give another, --documents") from error
    changed = []

    def generate(name: str, earlier: str) -> str:
        text = f"\n{table(name, folder, path.parent)}\n"
        if text != earlier:
            changed.append(name)
        return text

    after = replace_generated(before, generate, str(path))
    if changed and not check:
        save_text(path, after)
    return changed


def table(name: str, folder: Path, base: Path) -> str:
    """Return the text for a marker, such as "results mini". base: the document's folder."""
    if name == ANSWER:
        return answer(folder)
    kind, _, argument = name.partition(" ")
    check_choice("generated table", kind, {*KINDS, ANSWER})
    if not re.fullmatch(r"[\w-]+", argument):
        raise UserError(f"marker '{name}' names no pool or table: write it as in {EXAMPLE}")
    return KINDS[kind](argument, folder, base)


def replace_generated(text: str, generate: Callable[[str, str], str], document: str) -> str:
    """Return the text with ``generate(name, earlier text)`` between the markers of each name.

    document: its name, for errors. Raises UserError if there is no marker, or one without its counterpart.
    """
    lines, name, opened, inside, has_marker = [], None, 0, [], False
    for number, line in enumerate(text.split("\n"), start=1):
        begin = BEGIN.fullmatch(line.strip())
        if begin and name is None:
            lines.append(line)
            name, opened, inside, has_marker = begin[1], number, [], True
        elif begin:
            break  # the marker before it is still open
        elif line.strip() == END:
            if name is None:
                raise UserError(
                    f"{document}, line {number}: {END} without a begin: put a marker such as {EXAMPLE} first"
                )
            lines += [*generate(name, "\n".join(inside)).split("\n"), line]
            name = None
        else:
            (lines if name is None else inside).append(line)
    if name is not None:
        raise UserError(f"{document}, line {opened}: '{name}' is not closed: put {END} below its table")
    if not has_marker:
        raise UserError(f"{document} has no marker: put {EXAMPLE} and {END} around the place of the table")
    return "\n".join(lines)
