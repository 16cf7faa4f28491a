"""Pools: all runs with the same profile, tuning and overrides, from every grid.

Grids share cells: cross-entropy on CIFAR-100 is in four of the paper's tables. A pool has every cell once, with the
seeds of all grids. The paper's tables and the verdicts are computed from a pool.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from analysis.load.frames import DONE, NAME, Experiment, format_count, sort_runs

PAPER = "paper"
EPOCHS = "schedule.epochs"


@dataclass(frozen=True)
class Pool(Experiment):
    """All cells and runs of one profile with the same tuning and the same overrides.

    name: see ``pool_name``; it is part of file names.
    cells: each dataset/architecture/method once, with ``grids``, the names of the grids that launched it.
    runs: each cell and seed once, with ``experiment``, the experiment's name.
    """

    @property
    def title(self) -> str:
        """What its runs are: "mini, 60 epochs", or "mini, tuned, 60 epochs, subset.draw=seed"."""
        epochs = self.runs.get(f"params.{EPOCHS}", pd.Series(dtype=str)).dropna().unique()
        changed = [override for override in self.overrides if len(epochs) != 1 or not override.startswith(f"{EPOCHS}=")]
        tuned = ["tuned"] if self.tuned else []
        return ", ".join(
            [self.profile, *tuned, *(f"{number} epochs" for number in epochs if len(epochs) == 1), *changed]
        )

    def runs_of(self, dataset: str, architecture: str, method: str) -> pd.DataFrame:
        """Return the finished runs of one cell by seed; empty if there is none."""
        return self._done_by_name.get((dataset, architecture, method), self._no_runs)

    def settings_of(self, dataset: str, architecture: str, method: str) -> dict[str, str]:
        """Return the settings of one cell, as in ``settings``; {} without a finished run."""
        runs = self.runs_of(dataset, architecture, method)
        return {} if runs.empty else self.settings[runs.cell_key.iloc[0]]

    @property
    def groups(self) -> list[tuple[str, str]]:
        """Each dataset and architecture, in the order of the cells."""
        return list(dict.fromkeys(zip(self.cells.dataset, self.cells.architecture, strict=True)))

    def methods_on(self, dataset: str, architecture: str) -> list[str]:
        """Return the launched methods, in the order of the cells."""
        cells = self.cells[(self.cells.dataset == dataset) & (self.cells.architecture == architecture)]
        return list(cells.method)

    @cached_property
    def _done_by_name(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        return dict(list(self.done.groupby(NAME, sort=False)))

    @cached_property
    def _no_runs(self) -> pd.DataFrame:
        return self.runs[:0]

    def part(self, cells: pd.DataFrame) -> "Pool":
        """Return the pool reduced to these rows of ``cells`` and their runs."""
        runs = self.runs[self.runs.cell_key.isin(cells.cell_key)]
        return replace(self, cells=cells.reset_index(drop=True), runs=runs.reset_index(drop=True))


def pool_name(profile: str, tuned: bool = False, overrides: tuple[str, ...] = ()) -> str:
    """Return the displayed name: "mini", "mini-tuned", or "mini-custom-6a6759" with a digest of the overrides."""
    name = f"{profile}-tuned" if tuned else profile
    if not overrides:
        return name
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()
    return f"{name}-custom-{digest[:6]}"


def pools(experiments: list[Experiment]) -> list[Pool]:
    """Return the pools of all experiments: the paper's recipe first, then by name."""
    groups: dict[tuple, list[Experiment]] = {}
    for experiment in experiments:
        key = (experiment.profile, experiment.tuned, tuple(sorted(experiment.overrides)))
        groups.setdefault(key, []).append(experiment)
    return sorted((_pool(*item) for item in groups.items()), key=lambda pool: (pool.name != PAPER, pool.name))


def _pool(key: tuple[str, bool, tuple[str, ...]], experiments: list[Experiment]) -> Pool:
    notes = [note for experiment in experiments for note in experiment.notes]
    cells = pd.concat([experiment.cells for experiment in experiments], ignore_index=True)
    runs = pd.concat(
        [experiment.runs.assign(experiment=experiment.name) for experiment in experiments], ignore_index=True
    )
    keys = _latest_settings(cells, runs, notes)
    cells, runs = cells[cells.cell_key.isin(keys)], runs[runs.cell_key.isin(keys)]
    by_key = cells.groupby("cell_key")
    grids = by_key.grid.agg(lambda names: tuple(dict.fromkeys(names)))
    planned = by_key.seeds_planned.agg(lambda lists: sorted({seed for seeds in lists for seed in seeds}))
    cells = cells.drop_duplicates("cell_key").reset_index(drop=True)
    cells = cells.assign(grids=cells.cell_key.map(grids), seeds_planned=cells.cell_key.map(planned))
    runs = sort_runs(runs, list(cells.cell_key)).drop_duplicates(["cell_key", "seed"], ignore_index=True)
    profile, tuned, overrides = key
    notes = tuple(dict.fromkeys(notes))
    return Pool(pool_name(*key), profile, cells, runs, notes, tuned, overrides, tuple(experiments))


def _latest_settings(cells: pd.DataFrame, runs: pd.DataFrame, notes: list[str]) -> list[str]:
    """Return one cell key for each cell name.

    A recipe that changed between two launches gives a cell two keys. The key of the finished run that started last is
    used: an unfinished or failed run does not replace finished runs.
    """
    never = pd.Timestamp.min.tz_localize("UTC")
    finished = runs[runs.state == DONE].groupby("cell_key").started.max()
    started = runs.groupby("cell_key").started.max()
    latest = []
    for cell, group in cells.groupby("cell", sort=False):
        keys = list(dict.fromkeys(group.cell_key))
        latest.append(max(keys, key=lambda key: (finished.get(key, never), started.get(key, never))))
        for key in keys:
            if key != latest[-1]:
                count = format_count((runs.cell_key == key).sum(), "run")
                notes.append(f"{cell}: {count} with other settings than the latest: left out.")
    return latest
