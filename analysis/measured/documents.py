"""The generated tables of the documentation: the text between two markers.

A table is between the lines ``<!-- begin generated: KIND NAME -->`` and ``<!-- end generated -->``. Kinds: ``results
POOL``, ``verdicts POOL``, ``methods POOL``, ``ingredients POOL``, ``further-ingredients POOL``, ``studies NAME``,
``bench TABLE``, and ``answer``, the README's table.
"""

import re
from pathlib import Path

from analysis.measured.bench_tables import bench
from analysis.measured.differences import methods, methods_figure, methods_path
from analysis.measured.ingredients import (
    figure_path,
    further_figure,
    further_ingredients,
    further_path,
    ingredients,
    ingredients_figure,
)
from analysis.measured.results_tables import answer, results, verdicts
from analysis.measured.studies import studies
from cskd.plots import save_figure
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import atomic_write

BEGIN, END = "<!-- begin generated: ", "<!-- end generated -->"
MARKER = re.compile(f"^(?:{BEGIN}|{END})", re.MULTILINE)
TABLE = re.compile(rf"^({BEGIN}([^\n]+) -->\n)(.*?)^({END})$", re.MULTILINE | re.DOTALL)
EXAMPLE = "<!-- begin generated: results mini -->"
KINDS = {
    **{"results": results, "verdicts": verdicts, "methods": methods, "ingredients": ingredients},
    **{"further-ingredients": further_ingredients, "studies": studies, "bench": bench},
}
# Kinds with a figure: its path, and its drawing
FIGURES = {
    "methods": (methods_path, methods_figure),
    "ingredients": (figure_path, ingredients_figure),
    "further-ingredients": (further_path, further_figure),
}
ANSWER = "answer"


def update(path: Path, folder: Path, check: bool) -> list[str]:
    """Regenerate the tables of a document, and their figures; return the names of the tables that changed.

    folder: contains the measured CSV files. check: write nothing. Raises UserError if the document cannot be read, has
    no marker, or has a marker without its counterpart.
    """
    try:
        before = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give another file with --documents") from error
    markers = MARKER.findall(before)
    if not markers or markers != [BEGIN, END] * (len(markers) // 2):
        raise UserError(f"{path}: each table must be between {EXAMPLE} and {END}: correct its markers")
    changed = []

    def regenerate(match: re.Match) -> str:
        begin, name, earlier, end = match.groups()
        text = f"\n{table(name, folder, path.parent)}\n\n"
        if text != earlier:
            changed.append(name)
        return begin + text + end

    after = TABLE.sub(regenerate, before)
    if changed and not check:
        with atomic_write(path) as file:
            file.write(after.encode())
        for name in changed:
            kind, _, pool = name.partition(" ")
            if kind in FIGURES:
                place, draw = FIGURES[kind]
                save_figure(draw(pool, folder), path.parent / place(pool))
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
