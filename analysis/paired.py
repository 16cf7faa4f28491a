"""Two experiments side by side, seed by seed: what settings that differ between them come to.

Runs of the same dataset, architecture, method and seed are a pair. Of each metric the difference, the second experiment
minus the first, has a 95 % interval over seeds. The table and its pairs go to RESULTS_DIR/paired/.
"""

import argparse
import math
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.intervals import paired_effect
from analysis.metrics import METRICS, Metric
from analysis.provenance import origin
from analysis.render import show, to_csv
from analysis.run_tables import run_frame
from analysis.runs import NAME, Experiment
from analysis.store import Store
from analysis.table import Block, Column, Table, signed
from analysis.tables import OFF_TERMINAL, written_to
from analysis.written import save_table, save_text
from cskd import cli
from cskd.errors import UserError

SIDES = ("first", "second")


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis.paired", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs=2, metavar="EXPERIMENT", help="a tracked grid, such as table1-mini")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    first, second = options.experiments
    if first == second:
        raise UserError(f"{first} against itself: give two experiments")
    loaded = {experiment.name: experiment for experiment in Store(cli.tracking_uri()).load([first, second])}
    sides = [loaded[first], loaded[second]]
    pairs, table = pairs_of(sides), paired_table(sides)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=OFF_TERMINAL)
    folder = options.results_dir / "paired"
    with written_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_table(folder, f"{first}-{second}", table)
        save_text(folder / f"{first}-{second}-runs.csv", to_csv(pairs))
    show(table, console)
    console.print(f"Written to {folder}", markup=False, soft_wrap=True)
    return 0


def pairs_of(sides: list[Experiment]) -> pd.DataFrame:
    """A row a run of a pair, with ``experiment`` and ``side`` before the columns of a table of runs.

    Raises UserError where no run of the one has its counterpart in the other.
    """
    frames = []
    for name, side in zip(SIDES, sides, strict=True):
        runs = run_frame(side)[lambda runs, side=side: runs.run_key.isin(side.done.run_key)]
        frames.append(runs.assign(experiment=side.name, side=name))
    runs = pd.concat(frames, ignore_index=True)
    runs = runs[runs.groupby([*NAME, "seed"]).side.transform("nunique") == len(SIDES)]
    if runs.empty:
        raise UserError(
            f"{sides[0].name} and {sides[1].name} have no finished runs of the same dataset, architecture, method and "
            "seed: launch the same grid for both"
        )
    first = ["experiment", "side"]
    return runs.sort_values([*NAME, "seed", "side"])[[*first, *(name for name in runs if name not in first)]]


def paired_table(sides: list[Experiment]) -> Table:
    """A row a cell and metric that both have: the means, their difference with its interval, the seeds."""
    blocks, records, pairs = [], [], pairs_of(sides)
    for cell, runs in pairs.groupby(NAME, sort=False):
        rows = []
        by_seed = {name: runs[runs.side == name].set_index("seed") for name in SIDES}
        for metric in METRICS:
            values = pd.DataFrame({name: by_seed[name][f"last_{metric.name}"] for name in SIDES}).dropna()
            if values.empty:
                continue
            effect = paired_effect(values["second"], values["first"])
            low, high = effect.interval
            record = dict(zip(NAME, cell, strict=True)) | {"metric": metric.name, "n": len(values)}
            record |= {f"mean_{name}": values[name].mean() for name in SIDES}
            records.append(record | {"difference": effect.value, "low": low, "high": high})
            rows.append(_texts(metric, records[-1]))
        blocks.append(Block("/".join(cell), (tuple(rows),)))
    numbers = (*SIDES, "difference", "95 % interval")
    columns = (Column("metric"), *(Column(name, number=True) for name in numbers), Column("n"))
    notes = (
        "After the last epoch. Difference: the second minus the first, over the seeds that both have.",
        *(f"{side.name}: {origin(side.done)}" for side in sides),
    )
    title = f"{sides[0].name} and {sides[1].name}"
    return Table(title, columns, tuple(blocks), pd.DataFrame(records), (_differing(sides, pairs),), notes)


def _texts(metric: Metric, record: dict) -> tuple[str, ...]:
    def text(value: float, sign: str = "") -> str:
        return signed(f"{value:{sign}.{metric.decimals}f}")

    # one seed has no interval
    interval = "" if math.isnan(record["low"]) else f"{text(record['low'], '+')} to {text(record['high'], '+')}"
    means = (text(record[f"mean_{name}"]) for name in SIDES)
    return (metric.title, *means, text(record["difference"], "+"), interval, str(record["n"]))


def _differing(sides: list[Experiment], pairs: pd.DataFrame) -> str:
    """Which is which, and the settings in which runs of a pair differ."""
    found: dict[str, dict[str, None]] = {}  # by setting, what it is on either side, in the order of the cells
    for _, runs in pairs.groupby(NAME, sort=False):
        first, second = (
            _settings(experiment, runs[runs.side == name].run_key.iloc[0])
            for name, experiment in zip(SIDES, sides, strict=True)
        )
        for name in first | second:
            values = first.get(name, "by default"), second.get(name, "by default")
            if values[0] != values[1]:
                found.setdefault(name, {})[" / ".join(values)] = None
    told = (f"{name} {' or '.join(found[name])}" for name in sorted(found))
    named = f"First: {sides[0].name}. Second: {sides[1].name}."
    return f"{named} They differ in: {', '.join(told) or 'no setting that is tracked'}."


def _settings(experiment: Experiment, run_key: str) -> dict[str, str]:
    """Those of a run by their dotted names."""
    run = experiment.done[experiment.done.run_key == run_key].iloc[0].dropna()
    return {name.removeprefix("params."): str(value) for name, value in run.items() if name.startswith("params.")}


if __name__ == "__main__":
    cli.run(main)
