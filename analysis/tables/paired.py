"""Paired comparison of two experiments, or of two methods of one experiment, over their common seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from analysis.claims.verdicts import EQUIVALENT, LEVEL, UNDECIDED
from analysis.load.frames import METHOD_SETTINGS, NAME, Experiment
from analysis.stats.intervals import Estimate, paired_effect
from analysis.stats.multiplicity import holm
from analysis.tables.format import interval_text
from analysis.tables.model import Block, Column, Row, Table
from analysis.tables.provenance import origin
from analysis.tables.runs import run_frame
from cskd.evaluate.metrics import TRACKED, all_metrics
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.numbers import number_text

SIDES = ("first", "second")
NOTES = (
    "After the last epoch. Difference: the second minus the first, over the seeds that both have.",
    f"Verdict on the second: better or worse if the p-value, corrected by Holm's method for the rows of this table, is "
    f"at most {LEVEL}; equivalent if the 90 % interval lies within the margin of docs/judgement.md; else undecided.",
)
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class Pairing:
    """Two sides whose runs are paired: a pair has the same seed and the same values in the columns ``cell``.

    file: the stem of the file names. names: of both sides. method_settings: prefixes of the settings that define the
    two methods; the table does not list them as differences.
    """

    title: str
    file: str
    names: tuple[str, str]
    sides: tuple[Experiment, Experiment]
    cell: tuple[str, ...] = tuple(NAME)
    method_settings: tuple[str, ...] = ()


def compare_experiments(first: Experiment, second: Experiment) -> Pairing:
    names = (first.name, second.name)
    return Pairing(" and ".join(names), "-".join(names), names, (first, second))


def compare_methods(experiment: Experiment, first: str, second: str) -> Pairing:
    """Return the comparison of two methods. Raises UserError if one is unknown or has no finished run."""
    names, sides = (first, second), []
    for name in names:
        check_choice(f"method of {experiment.name}", name, set(experiment.cells.method))
        sides.append(replace(experiment, runs=experiment.done[experiment.done.method == name]))
        if sides[-1].runs.empty:
            raise UserError(f"{name} has no finished run in {experiment.name}: 'make status' shows the reason")
    return Pairing(
        title=f"{first} and {second}, {experiment.name}",
        file=",".join((experiment.name, *names)),  # method names contain hyphens, but no commas
        names=names,
        sides=tuple(sides),
        cell=("dataset", "architecture"),
        method_settings=METHOD_SETTINGS,
    )


def paired_table(pairing: Pairing) -> tuple[Table, pd.DataFrame]:
    """Return the table, one block per cell and one row per metric, and the runs of its pairs.

    Raises UserError if there is no pair.
    """
    matched = _matched_runs(pairing)
    is_shared = matched.duplicated("run_key", keep=False)  # two grids may share a run
    pairs = matched[~is_shared]
    if pairs.empty:
        names, cell = " and ".join(pairing.names), ", ".join(pairing.cell)
        if is_shared.any():
            raise UserError(f"{names} have the same runs: give two that differ in a setting")
        raise UserError(f"{names} have no finished runs of the same {cell} and seed: launch the same grid for both")
    frame = pd.DataFrame(
        record
        for cell, runs in pairs.groupby(list(pairing.cell), sort=False)
        for record in _records(pairing, cell, runs)
    )
    frame = frame.assign(verdict=_verdicts(frame.pop("effect"), frame.metric))
    blocks = tuple(
        Block("/".join(cell), (tuple(map(_texts, rows.to_dict("records"))),))
        for cell, rows in frame.groupby(list(pairing.cell), sort=False)
    )
    numbers = (*SIDES, "difference", "95 % interval")
    columns = (Column("metric"), *(Column(name, number=True) for name in numbers), Column("n"), Column("verdict"))
    notes = [*NOTES]
    if is_shared.any():
        cells = matched[is_shared][NAME].drop_duplicates().itertuples(index=False, name=None)
        notes.append(f"Left out, the same runs on both sides: {', '.join(map('/'.join, cells))}.")
    notes += [f"{name}: {origin(side.done)}" for name, side in zip(pairing.names, pairing.sides, strict=True)]
    intro = (_differences(pairing, pairs),)
    return Table(pairing.title, columns, blocks, frame, intro, tuple(notes)), pairs


def _matched_runs(pairing: Pairing) -> pd.DataFrame:
    """Return the finished runs that have a counterpart on the other side, with ``experiment`` and ``side`` first."""
    frames = []
    for name, side in zip(SIDES, pairing.sides, strict=True):
        runs = run_frame(side)
        frames.append(runs[runs.run_key.isin(side.done.run_key)].assign(experiment=side.name, side=name))
    runs = pd.concat(frames, ignore_index=True)
    pair = [*pairing.cell, "seed"]
    runs = runs[runs.groupby(pair).side.transform("nunique") == len(SIDES)]
    first = ["experiment", "side"]
    return runs.sort_values([*pair, "side"])[[*first, *(name for name in runs if name not in first)]]


def _records(pairing: Pairing, cell: tuple[str, ...], runs: pd.DataFrame) -> list[dict]:
    """Return one row of the table's frame for each metric that a pair of the cell has, with its ``effect``."""
    records = []
    for metric in TRACKED:
        values = runs.pivot(index="seed", columns="side", values=f"last_{metric.name}").dropna()
        if values.empty:
            continue
        effect = paired_effect(values["second"], values["first"])
        low, high = effect.interval
        record = dict(zip((*pairing.cell, *SIDES), (*cell, *pairing.names), strict=True))
        record |= {"metric": metric.name, "n": len(values)}
        record |= {f"mean_{name}": values[name].mean() for name in SIDES}
        records.append(record | {"difference": effect.value, "low": low, "high": high, "effect": effect})
    return records


def _verdicts(effects: Iterable[Estimate], metrics: Iterable[str]) -> list[str]:
    """Return the verdict on each difference, corrected for their number."""
    effects = list(effects)
    known = [effect.p_value for effect in effects if math.isfinite(effect.p_value)]
    corrected = iter(holm(known))
    verdicts = []
    for effect, name in zip(effects, metrics, strict=True):
        p_value = next(corrected) if math.isfinite(effect.p_value) else math.nan
        metric = all_metrics()[name]
        margin = metric.equivalence_margin
        if p_value <= LEVEL:
            verdicts.append(BETTER if (effect.value > 0) == metric.higher_is_better else WORSE)
        else:
            is_equivalent = margin is not None and effect.equivalence_p(margin) <= LEVEL
            verdicts.append(EQUIVALENT if is_equivalent else UNDECIDED)
    return verdicts


def _texts(record: dict) -> Row:
    metric = all_metrics()[record["metric"]]
    means = (number_text(record[f"mean_{name}"], metric.decimals) for name in SIDES)
    difference = number_text(record["difference"], metric.decimals, sign=True)
    interval = interval_text((record["low"], record["high"]), metric.decimals, sign=True)
    return (metric.label, *means, difference, interval, str(record["n"]), record["verdict"])


def _differences(pairing: Pairing, pairs: pd.DataFrame) -> str:
    """Return a sentence with the names of the sides and the settings in which the runs of a pair differ."""
    different: dict[str, dict[str, None]] = {}  # by setting: its values on both sides, in the order of the cells
    for _, runs in pairs.groupby(list(pairing.cell), sort=False):
        first, second = (
            _settings(side, runs[runs.side == name].run_key.iloc[0], pairing.method_settings)
            for name, side in zip(SIDES, pairing.sides, strict=True)
        )
        for name in first | second:
            values = first.get(name, "by default"), second.get(name, "by default")
            if values[0] != values[1]:
                different.setdefault(name, {})[" / ".join(values)] = None
    settings = ", ".join(f"{name} {' or '.join(different[name])}" for name in sorted(different)) or "no tracked setting"
    first, second = pairing.names
    lead = "Apart from the method, they differ in" if pairing.method_settings else "They differ in"
    return f"First: {first}. Second: {second}. {lead}: {settings}."


def _settings(side: Experiment, run_key: str, excluded: tuple[str, ...]) -> dict[str, str]:
    run = side.done[side.done.run_key == run_key].iloc[0].dropna()
    names = [name for name in run.index if name.startswith("params.") and not name.startswith(excluded)]
    return {name.removeprefix("params."): str(run[name]) for name in names}
