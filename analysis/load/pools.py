"""Runs of one kind put together, whatever grid launched them: what the paper's tables and claims are read from.

Tables share runs (cross-entropy on CIFAR-100 stands in four of the paper's), and a grid may have trained only a part
of a table. A pool has every cell once, with all its seeds.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from analysis.load.frames import DONE, NAME, Experiment, counted

PAPER = "paper"


@dataclass(frozen=True)
class Pool:
    """Every tracked cell and run of one profile and of the same changes to it.

    name: the profile, with "-tuned" and "-custom-<digits>" where the runs have tuned or changed settings.
    experiments: whose they are. cells: as ``Experiment.cells``, each dataset/architecture/method once, with
    ``grids``, a tuple of the grids that it was launched by. runs: as ``Experiment.runs``, each cell and seed once,
    with ``experiment``, where it is tracked. notes: what was left out, and why.
    """

    name: str
    profile: str
    experiments: tuple[Experiment, ...]
    cells: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def overrides(self) -> str:
        """The settings changed from the recipe: those of every experiment that says them."""
        return next((experiment.overrides for experiment in self.experiments if experiment.overrides), "")

    @property
    def done(self) -> pd.DataFrame:
        """The runs that have results."""
        return self.runs[self.runs.state == DONE]

    def runs_of(self, dataset: str, architecture: str, method: str) -> pd.DataFrame:
        """The finished runs of one cell, by seed; empty where there is none."""
        return self._done_by_name.get((dataset, architecture, method), self.runs[:0])

    @cached_property
    def _done_by_name(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        return dict(list(self.done.groupby(NAME, sort=False)))

    def part(self, cells: pd.DataFrame) -> "Pool":
        """The pool of these rows of ``cells`` alone, with their runs."""
        runs = self.runs[self.runs.cell_key.isin(cells.cell_key)]
        return replace(self, cells=cells.reset_index(drop=True), runs=runs.reset_index(drop=True))


def pools(experiments: list[Experiment]) -> list[Pool]:
    """The pools of all experiments: the paper's own recipe first, then by name."""
    kinds: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        kinds.setdefault(_kind(experiment), []).append(experiment)
    return [_pool(name, kinds[name]) for name in sorted(kinds, key=lambda name: (name != PAPER, name))]


def _kind(experiment: Experiment) -> str:
    """``table1-mini-tuned`` of the grid ``table1`` is ``mini-tuned``."""
    cell = experiment.cells.iloc[0]
    changes = experiment.name.removeprefix(cell.grid).removeprefix(f"-{cell.profile}")
    return re.sub(r"[^\w.+-]", "_", cell.profile + changes)  # it becomes the name of a folder


def _pool(name: str, experiments: list[Experiment]) -> Pool:
    notes = [note for experiment in experiments for note in experiment.notes]
    cells = pd.concat([experiment.cells for experiment in experiments], ignore_index=True)
    runs = pd.concat(
        [experiment.runs.assign(experiment=experiment.name) for experiment in experiments], ignore_index=True
    )
    # An experiment that was launched before its recipe was changed has a cell of the same name and another key.
    # Of these the latest with a finished run counts: one that has just begun, or failed, does not push others out.
    latest = [runs[runs.state == DONE].groupby("cell_key").started.max(), runs.groupby("cell_key").started.max()]
    never = pd.Timestamp.min.tz_localize("UTC")
    kept = {}
    for cell, group in cells.groupby("cell", sort=False):
        keys = list(dict.fromkeys(group.cell_key))
        kept[cell] = max(keys, key=lambda key: [times.get(key, never) for times in latest])
        for key in keys:
            if key != kept[cell]:
                count = (runs.cell_key == key).sum()
                notes.append(f"{cell}: {counted(count, 'run')} with other settings than the latest: left out.")
    grids = cells.groupby("cell_key").grid.agg(lambda names: tuple(dict.fromkeys(names)))
    cells = cells[cells.cell_key.isin(kept.values())]
    planned = cells.groupby("cell_key").seeds_planned.agg(
        lambda lists: sorted({seed for each in lists for seed in each})
    )
    cells = cells.drop_duplicates("cell_key").reset_index(drop=True)
    cells = cells.assign(grids=cells.cell_key.map(grids), seeds_planned=cells.cell_key.map(planned))
    runs = runs[runs.cell_key.isin(kept.values())]
    runs = runs.assign(
        unfinished=runs.state != DONE, order=runs.cell_key.map({k: i for i, k in enumerate(cells.cell_key)})
    )
    runs = runs.sort_values(["order", "seed", "unfinished", "started", "run_id"], kind="stable")
    runs = runs.drop_duplicates(["cell_key", "seed"]).drop(columns=["unfinished", "order"]).reset_index(drop=True)
    return Pool(name, cells.profile.iloc[0], tuple(experiments), cells, runs, tuple(dict.fromkeys(notes)))
