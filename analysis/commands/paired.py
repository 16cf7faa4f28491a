"""Two experiments, or two methods of one experiment, side by side, seed by seed.

Of two EXPERIMENTS, runs of the same dataset, architecture, method and seed are a pair: what the settings in which they
differ come to. Of two METHODS of one EXPERIMENT, say cross-entropy and yours, runs of the same dataset, architecture
and seed are. Of each metric the difference, the second minus the first, has a 95 % interval over seeds. The table and
its pairs go to RESULTS_DIR/paired/.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.load.frames import NAME, Experiment
from analysis.load.store import Store
from analysis.stats.comparability import METHOD_SETTINGS
from analysis.stats.intervals import paired_effect
from analysis.tables.export import results_in, save_table, save_text
from analysis.tables.format import interval_text, number_text, show, table_console, to_csv
from analysis.tables.model import Block, Column, Table
from analysis.tables.provenance import origin
from analysis.tables.runs import run_frame
from cskd.evaluate.metrics import TRACKED, Metric
from cskd.utils import cli
from cskd.utils.errors import UserError

SIDES = ("first", "second")


@dataclass(frozen=True)
class Comparison:
    """Two sides, of which runs with the same seed and the same values in the columns ``alike`` are pairs.

    title: of the table. file: the name of its files. names: of the sides. sides: each an experiment with its runs
    alone. expected: what settings begin with in which the sides differ by nature.
    """

    title: str
    file: str
    names: tuple[str, str]
    sides: tuple[Experiment, Experiment]
    alike: tuple[str, ...] = tuple(NAME)
    expected: tuple[str, ...] = ()


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis paired", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="a tracked grid, such as table1-mini")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="two methods of one experiment: the second minus the first"
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    comparison = _asked_for(options.experiments, options.methods or [])
    pairs, table = pairs_of(comparison), paired_table(comparison)
    console = table_console()
    folder = options.results_dir / "paired"
    with results_in(folder):
        save_table(folder, comparison.file, table)
        save_text(folder / f"{comparison.file}-runs.csv", to_csv(pairs))
    show(table, console)
    console.print(f"Written to {folder}", markup=False, soft_wrap=True)
    return 0


def _asked_for(experiments: list[str], methods: list[str]) -> Comparison:
    if (len(experiments), len(methods)) not in ((2, 0), (1, 2)):
        message = [", ".join(names) for names in (experiments, methods) if names]
        raise UserError(f"{' with methods '.join(message)}: give two experiments, or one and two of its methods")
    kind, (first, second) = ("methods", methods) if methods else ("experiments", experiments)
    if first == second:
        raise UserError(f"{first} against itself: give two {kind}")
    loaded = {experiment.name: experiment for experiment in Store(cli.tracking_uri()).load(experiments)}
    if methods:
        return of_methods(loaded[experiments[0]], first, second)
    return of_experiments(loaded[first], loaded[second])


def of_experiments(first: Experiment, second: Experiment) -> Comparison:
    names = (first.name, second.name)
    return Comparison(" and ".join(names), "-".join(names), names, (first, second))


def of_methods(experiment: Experiment, first: str, second: str) -> Comparison:
    """Raises UserError for a method that the experiment does not have, or of which no run is finished."""
    names, sides = (first, second), []
    for name in names:
        cli.check_choice(f"method of {experiment.name}", name, set(experiment.cells.method))
        sides.append(replace(experiment, runs=experiment.done[experiment.done.method == name]))
        if sides[-1].runs.empty:
            raise UserError(f"{name} has no finished run in {experiment.name}: 'make status' says why")
    return Comparison(
        title=f"{first} and {second}, {experiment.name}",
        file=",".join((experiment.name, *names)),  # names of methods have hyphens, and no commas
        names=names,
        sides=tuple(sides),
        alike=("dataset", "architecture"),
        expected=METHOD_SETTINGS,
    )


def pairs_of(comparison: Comparison) -> pd.DataFrame:
    """A row a run of a pair, with ``experiment`` and ``side`` before the columns of a table of runs.

    Runs that are on both sides are left out. Raises UserError where there is no pair.
    """
    matched, names = _matched(comparison), " and ".join(comparison.names)
    if matched.empty:
        alike = ", ".join(comparison.alike)
        raise UserError(f"{names} have no finished runs of the same {alike} and seed: launch the same grid for both")
    pairs = matched[~_is_shared(matched)]
    if pairs.empty:
        raise UserError(f"{names} have the very same runs: give two that differ in a setting")
    return pairs


def _matched(comparison: Comparison) -> pd.DataFrame:
    """The finished runs that have their counterpart on the other side."""
    frames = []
    for name, side in zip(SIDES, comparison.sides, strict=True):
        runs = run_frame(side)[lambda runs, side=side: runs.run_key.isin(side.done.run_key)]
        frames.append(runs.assign(experiment=side.name, side=name))
    runs, place = pd.concat(frames, ignore_index=True), [*comparison.alike, "seed"]
    runs = runs[runs.groupby(place).side.transform("nunique") == len(SIDES)]
    first = ["experiment", "side"]
    return runs.sort_values([*place, "side"])[[*first, *(name for name in runs if name not in first)]]


def _is_shared(matched: pd.DataFrame) -> pd.Series:
    """Which runs are on both sides: two grids may have trained the same."""
    return matched.duplicated("run_key", keep=False)


def paired_table(comparison: Comparison) -> Table:
    """A row a metric, in a block for each cell that both sides have: means, their difference, its interval, seeds."""
    blocks, records, pairs = [], [], pairs_of(comparison)
    for place, runs in pairs.groupby(list(comparison.alike), sort=False):
        rows = []
        by_seed = {name: runs[runs.side == name].set_index("seed") for name in SIDES}
        for metric in TRACKED:
            values = pd.DataFrame({name: by_seed[name][f"last_{metric.name}"] for name in SIDES}).dropna()
            if values.empty:
                continue
            effect = paired_effect(values["second"], values["first"])
            low, high = effect.interval
            record = dict(zip((*comparison.alike, *SIDES), (*place, *comparison.names), strict=True))
            record |= {"metric": metric.name, "n": len(values)}
            record |= {f"mean_{name}": values[name].mean() for name in SIDES}
            records.append(record | {"difference": effect.value, "low": low, "high": high})
            rows.append(_texts(metric, records[-1]))
        blocks.append(Block("/".join(place), (tuple(rows),)))
    numbers = (*SIDES, "difference", "95 % interval")
    columns = (Column("metric"), *(Column(name, number=True) for name in numbers), Column("n"))
    notes = ["After the last epoch. Difference: the second minus the first, over the seeds that both have."]
    matched = _matched(comparison)
    shared = dict.fromkeys(matched[_is_shared(matched)][NAME].itertuples(index=False, name=None))
    if shared:
        notes.append(f"The same runs on both sides, left out: {', '.join(map('/'.join, shared))}.")
    notes += [f"{name}: {origin(side.done)}" for name, side in zip(comparison.names, comparison.sides, strict=True)]
    frame = pd.DataFrame(records)
    return Table(comparison.title, columns, tuple(blocks), frame, (_differing(comparison, pairs),), tuple(notes))


def _texts(metric: Metric, record: dict) -> tuple[str, ...]:
    means = (number_text(record[f"mean_{name}"], metric.decimals) for name in SIDES)
    difference = number_text(record["difference"], metric.decimals, sign=True)
    interval = interval_text((record["low"], record["high"]), metric.decimals, sign=True)
    return (metric.label, *means, difference, interval, str(record["n"]))


def _differing(comparison: Comparison, pairs: pd.DataFrame) -> str:
    """Which is which, and the settings in which runs of a pair differ, but for those expected to."""
    found: dict[str, dict[str, None]] = {}  # by setting, what it is on either side, in the order of the cells
    for _, runs in pairs.groupby(list(comparison.alike), sort=False):
        first, second = (
            _settings(side, runs[runs.side == name].run_key.iloc[0], comparison.expected)
            for name, side in zip(SIDES, comparison.sides, strict=True)
        )
        for name in first | second:
            values = first.get(name, "by default"), second.get(name, "by default")
            if values[0] != values[1]:
                found.setdefault(name, {})[" / ".join(values)] = None
    message = (f"{name} {' or '.join(found[name])}" for name in sorted(found))
    first, second = comparison.names
    lead = "Beside what makes the method, they differ in" if comparison.expected else "They differ in"
    return f"First: {first}. Second: {second}. {lead}: {', '.join(message) or 'no setting that is tracked'}."


def _settings(side: Experiment, run_key: str, expected: tuple[str, ...]) -> dict[str, str]:
    """Those of a run by their dotted names, but for those that begin with what is expected to differ."""
    run = side.done[side.done.run_key == run_key].iloc[0].dropna()
    names = [name for name in run.index if name.startswith("params.") and not name.startswith(expected)]
    return {name.removeprefix("params."): str(run[name]) for name in names}
