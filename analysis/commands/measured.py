"""Write what is tracked into results/measured/, as data that can be committed.

For each pool, which is all runs of one profile, runs-<pool>.csv has a row for each finished run and verdicts-<pool>.csv
one for each claim, dataset and network. Rows that are in the files and not tracked here stay. README.md's tables are
made of these files: python -m analysis.readme.
"""

import argparse
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import NOT_RUN, judge
from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import Pool, pools
from analysis.load.store import Store
from analysis.measured.csv_files import (
    EVALUATED,
    MEASURED,
    RUN_COLUMNS,
    RUN_KEY,
    VERDICT_COLUMNS,
    VERDICT_KEY,
    Merged,
    merge,
    read_runs,
    read_verdicts,
    runs_path,
    verdicts_path,
)
from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, Evaluation, evaluations
from analysis.tables.export import save_text
from analysis.tables.format import to_csv
from analysis.tables.provenance import trained_with
from analysis.tables.runs import ENERGY, run_frame
from analysis.tables.verdicts import verdict_frame
from cskd.utils import cli
from cskd.utils.errors import UserError

DEMO = "demo"


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis measured", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="only these tracked grids; default: all")
    parser.add_argument("--pool", nargs="+", metavar="NAME", help=f"only these pools; default: all but {DEMO}")
    parser.add_argument("--measured-dir", type=Path, default=MEASURED, help="where to write (default: %(default)s)")
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=cli.results_dir(),
        help="where evaluations of predictions are kept (RESULTS_DIR, %(default)s)",
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    store = Store(cli.tracking_uri())
    chosen = _chosen(pools(store.load(options.experiment)), options.pool)
    try:
        options.measured_dir.mkdir(parents=True, exist_ok=True)
        for pool in chosen:
            write(pool, store, options.measured_dir, options.results_dir, console)
    except OSError as error:
        where = f"{error.filename or options.measured_dir} cannot be written ({error.strerror})"
        raise UserError(f"{where}: set RESULTS_DIR, --results-dir or --measured-dir") from error
    return 0


def _chosen(every: list[Pool], names: list[str] | None) -> list[Pool]:
    by_name = {pool.name: pool for pool in every}
    if names:
        return [by_name[cli.check_choice("pool", name, by_name)] for name in dict.fromkeys(names)]
    chosen = [pool for pool in every if pool.profile != DEMO]
    if not chosen:
        raise UserError(f"only the pool {', '.join(by_name)} is tracked: --pool {DEMO} writes it all the same")
    return chosen


def write(pool: Pool, store: Store, folder: Path, results: Path, console: Console) -> None:
    """The pool's two files in ``folder``, merged with what they have; says what came of it and what was left out.

    Nothing is written of a pool without a finished run. results: where evaluations are kept.
    Raises OSError for what cannot be written, UserError for a file that cannot be read.
    """
    done = pool.done
    found, troubles = evaluations(done, store, results / ".evaluations", results / ".predictions")
    if done.empty:
        console.print(f"{pool.name}: no finished run: nothing written.", markup=False)
    else:
        path = runs_path(folder, pool.name)
        merged = _merged_runs(measured_frame(pool, found), path, console)
        save_text(path, to_csv(merged.rows))
        absent = len(set(merged.rows.run_key) - set(done.run_key))
        console.print(f"{path}: {len(merged.rows)} runs: {merged.message} ({absent} not tracked here).", markup=False)
        path = verdicts_path(folder, pool.name)
        merged = _merged_verdicts(verdict_frame(judge(pool, load_claims(), found)), path, console)
        save_text(path, to_csv(merged.rows))
        console.print(f"{path}: {len(merged.rows)} verdicts: {merged.message}.", markup=False)
    for note in (*pool.notes, *data_quality_notes(pool), *troubles):
        console.print(f"{pool.name}: {note}", markup=False)


def measured_frame(pool: Pool, found: dict[str, Evaluation]) -> pd.DataFrame:
    """A row a finished run, with the columns ``RUN_COLUMNS``: ``run_frame``, and what the evaluation adds to it.

    grids: those that launched its cell. trained: what it was trained on, in words. overrides: the pool's. Energy in
    kJ. Ordered by architecture, dataset, method, seed.
    """
    done = pool.done.reset_index(drop=True)
    cells = pool.cells.set_index("cell_key")
    frame = run_frame(pool)[lambda runs: runs.run_key.isin(done.run_key)].reset_index(drop=True)
    evaluated = pd.DataFrame([evaluated_numbers(found.get(key)) for key in done.run_key], columns=list(EVALUATED))
    named = {
        "cell_key": done.cell_key,
        "grids": done.cell_key.map(cells.grids).map(" ".join),
        "hyperparameter_source": done.cell_key.map(cells.hyperparameter_source),
        "tuned": done.cell_key.map(cells.tuned_values),
        "trained": [trained_with(run) for run in done.to_dict("records")],
        "overrides": ", ".join(pool.overrides),
        ENERGY: done.get(ENERGY, float("nan")),
    }
    return _ordered(pd.concat([frame.assign(**named), evaluated], axis=1)[list(RUN_COLUMNS)])


def evaluated_numbers(evaluation: Evaluation | None) -> dict[str, float]:
    """The columns ``EVALUATED`` of one run; NaN where it was not evaluated or a scaling could not be fitted."""
    numbers = dict.fromkeys(EVALUATED, float("nan"))
    if evaluation is None:
        return numbers
    numbers |= {name: evaluation.metrics[RAW][name] for name in ("adaptive_ece", "classwise_ece")}
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):
        name = scaling.replace(" ", "_").replace("-", "_")
        if scaling in evaluation.metrics:
            metrics = evaluation.metrics[scaling]
            numbers[f"temperature_{name}"] = evaluation.temperatures[scaling]
            numbers |= {f"ece_{name}": metrics["ece"], f"nll_{name}": metrics["nll"]}
    return numbers | evaluation.separation


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    number = runs.assign(number=pd.to_numeric(runs.seed, errors="coerce"))
    names = ["architecture", "dataset", "method", "number", "run_key"]
    return number.sort_values(names, ignore_index=True).drop(columns="number")


def _merged_runs(new: pd.DataFrame, path: Path, console: Console) -> Merged:
    def is_newer(run: dict, before: dict) -> bool:
        """A run that was not trained again is taken anew, unless its predictions have been lost since."""
        return (run["ended"], run["feature_spread"] != "") >= (before["ended"], before["feature_spread"] != "")

    merged = merge(_texts(new), _before(path, read_runs, RUN_COLUMNS, console), RUN_KEY, is_newer)
    return Merged(_ordered(merged.rows), merged.added, merged.replaced, merged.kept)


def _merged_verdicts(new: pd.DataFrame, path: Path, console: Console) -> Merged:
    """A claim's verdict is made anew where anything of it is tracked here; one on fewer seeds than before is named."""

    def is_newer(verdict: dict, before: dict) -> bool:
        return verdict["outcome"] != NOT_RUN or before["outcome"] == NOT_RUN

    before = _before(path, read_verdicts, VERDICT_COLUMNS, console)
    merged = merge(_texts(new), before, VERDICT_KEY, is_newer)
    counts = {tuple(row[list(VERDICT_KEY)]): (row.n_method, row.n_against) for _, row in before.iterrows()}
    for _, row in merged.rows.iterrows():
        name, now = tuple(row[list(VERDICT_KEY)]), (row.n_method, row.n_against)
        was = counts.get(name, now)
        if any(int(fewer) < int(more) for fewer, more in zip(now, was, strict=True)):
            message = f"{' '.join(name)}: the verdict is on {'/'.join(now)} seeds"
            console.print(f"{message}, the one before was on {'/'.join(was)}.", markup=False)
    claims = {claim.id: position for position, claim in enumerate(load_claims())}
    rows = merged.rows.assign(position=merged.rows.id.map(lambda name: claims.get(name, len(claims))))
    rows = rows.sort_values(["position", *VERDICT_KEY], ignore_index=True).drop(columns="position")
    return Merged(rows, merged.added, merged.replaced, merged.kept)


def _before(path: Path, read, columns: tuple[str, ...], console: Console) -> pd.DataFrame:
    """The file's rows; none where there is no file."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns), dtype=str)
    rows, lacking = read(path)
    if lacking:
        message = f"{path} is of an earlier version, without {', '.join(lacking)}"
        console.print(f"{message}: empty in the rows that stay.", markup=False)
    return rows


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell as the file has it."""
    return pd.read_csv(StringIO(to_csv(frame)), dtype=str, keep_default_na=False)
