"""Regenerate the result tables of README.md and docs/ from results/measured/.

A table is between the lines <!-- begin generated: results POOL --> (or: verdicts POOL, ingredients POOL, bench TABLE,
answer) and <!-- end generated -->. No tracking store is read: 'make measured' and 'make bench KEEP=1' write the files.
"""

import sys
from pathlib import Path

from analysis.measured.csv_files import MEASURED
from analysis.measured.documents import update
from cskd.utils import cli

DOCUMENTS = [Path("README.md"), Path("docs/results.md"), Path("docs/ingredients.md"), Path("docs/speed.md")]


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m analysis readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table would change")
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
    outdated = False
    for path in options.documents:
        changed = ", ".join(update(path, options.measured_dir, options.check))
        if changed and options.check:
            outdated = True
            print(f"{path} differs from {options.measured_dir} ({changed}): run 'make readme'", file=sys.stderr)
        else:
            print(f"{path}: {f'updated {changed}' if changed else 'is up to date'}.")
    return 1 if outdated else 0
