"""Make the result tables of README.md and docs/ anew from results/measured/, between the markers that name them.

A table stands between the lines <!-- begin generated: results POOL --> (or: verdicts POOL, bench TABLE) and
<!-- end generated -->. No tracking store is read: python -m analysis measured and python -m experiments bench --keep
write the files.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from analysis.measured.bench_tables import bench
from analysis.measured.csv_files import MEASURED
from analysis.measured.results_tables import results, verdicts
from analysis.tables.export import save_text
from cskd.utils import cli
from cskd.utils.errors import UserError, first_line

DOCUMENTS = [Path("README.md"), Path("docs/speed.md")]
KINDS = {"results": results, "verdicts": verdicts, "bench": bench}
BEGIN, END = re.compile(r"<!-- begin generated: (.+) -->"), "<!-- end generated -->"
EXAMPLE = "<!-- begin generated: results mini -->"


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis readme", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where anything would change")
    parser.add_argument(
        "--documents",
        nargs="+",
        type=Path,
        default=DOCUMENTS,
        metavar="FILE",
        help=f"default: {' '.join(map(str, DOCUMENTS))}",
    )
    parser.add_argument("--measured-dir", type=Path, default=MEASURED, help="the files (default: %(default)s)")
    options = parser.parse_args(arguments)
    outdated = [_outdated(path, options.measured_dir, options.check) for path in options.documents]
    return 1 if options.check and any(outdated) else 0


def _outdated(path: Path, folder: Path, check: bool) -> bool:
    """Whether a table of the document is not what the files give: said, and unless ``check`` made anew."""
    try:
        before = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give another, --documents") from error
    changed = []

    def made(name: str, earlier: str) -> str:
        text = f"\n{table(name, folder, path.parent)}\n"
        if text != earlier:
            changed.append(name)
        return text

    after = regenerated(before, made, str(path))
    if changed and check:
        print(f"{path} is not what {folder} gives ({', '.join(changed)}): run 'make readme'", file=sys.stderr)
        return True
    if changed:
        save_text(path, after)
    print(f"{path}: {', '.join(changed) + ' made anew' if changed else 'is what the files give'}.")
    return bool(changed)


def table(name: str, folder: Path, base: Path) -> str:
    """The text of the table of a marker, such as ``results mini``. folder, base: see ``readme_tables.results``."""
    kind, _, of = name.partition(" ")
    make = KINDS[cli.check_choice("generated table", kind, KINDS)]
    if not re.fullmatch(r"[\w-]+", of):
        raise UserError(f"marker '{name}' does not say of what: write it as in {EXAMPLE}")
    return make(of, folder, base)


def regenerated(text: str, make: Callable[[str, str], str], document: str) -> str:
    """The text with what stands between markers replaced by ``make(name, what stood there)``.

    document: its name in errors. Raises UserError where there is no marker, or one without its counterpart.
    """
    lines, name, opened, inside, found = [], None, 0, [], False
    for number, line in enumerate(text.split("\n"), start=1):
        begin = BEGIN.fullmatch(line.strip())
        if begin and name is None:
            lines.append(line)
            name, opened, inside, found = begin[1], number, [], True
        elif begin:
            break  # the one before is still open
        elif line.strip() == END:
            if name is None:
                raise UserError(
                    f"{document}, line {number}: {END} closes nothing: put a marker such as {EXAMPLE} first"
                )
            lines += [*make(name, "\n".join(inside)).split("\n"), line]
            name = None
        else:
            (lines if name is None else inside).append(line)
    if name is not None:
        raise UserError(f"{document}, line {opened}: '{name}' is not closed: put {END} below its table")
    if not found:
        raise UserError(f"{document} has no marker: put {EXAMPLE} and {END} where the table is to stand")
    return "\n".join(lines)
