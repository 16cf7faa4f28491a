"""What was really run: every run with where it ran, and every setting."""

import math

import pandas as pd

from analysis.load.frames import Experiment
from analysis.load.pools import Pool
from analysis.load.store import Store
from analysis.report.html import Link
from analysis.tables.model import ABSENT, Block, Column, Table
from cskd.evaluate.metrics import TRACKED

OWN = ("params.seed", "params.method", "params.dataset", "params.architecture")  # in the run's name
ENERGY = "energy_kilojoules"
IDENTITY = (
    *(
        "run_key",
        "profile",
        "architecture",
        "dataset",
        "method",
        "seed",
        "state",
        "reason",
        "comparable",
        "comparable_reason",
    ),
    *("git_commit", "git_dirty", "machine", "device", "threads", "precision", "compiled"),
)


def run_frame(experiment: Experiment | Pool) -> pd.DataFrame:
    """A row a run: what it was, where it ran, every metric of its last and of its best test epoch.

    ``best_epoch`` counts from 0, as tracked; minutes of training and testing; dates in UTC.
    """
    runs = experiment.runs
    named = {column: runs[column] for column in IDENTITY}
    named |= {column: runs[column].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for column in ("started", "ended")}
    named |= {"minutes": runs.minutes}
    named |= {f"last_{metric.name}": runs[metric.last] for metric in TRACKED}
    named |= {"best_epoch": runs["best/epoch"]}
    named |= {f"best_{metric.name}": runs[metric.best] for metric in TRACKED if metric.at_best_epoch}
    return pd.DataFrame(named)


def run_table(pool: Pool, store: Store) -> Table:
    """A row a run, finished or not, with a link to it in the MLflow UI."""
    measured = ENERGY in pool.runs and pool.runs[ENERGY].notna().any()
    columns = [*map(Column, ("run", "run key", "state", "commit", "machine", "device", "precision", "started (UTC)"))]
    columns += [Column("minutes", number=True)]
    columns += [Column("energy (kJ)", number=True)] if measured else []
    columns += [
        Column(name, number=True) for name in ("last error (%)", "best error (%)", "best epoch", "last ECE (%)")
    ]
    rows = []
    for run in pool.runs.to_dict("records"):
        commit = ", ".join(each[:10] for each in run["git_commit"].split()) or "unknown"
        reason = f" ({run['reason']})" if run["reason"] else ""
        numbers = ["minutes", *([ENERGY] if measured else []), "test/top1_error", "best/top1_error", "best/epoch"]
        rows.append(
            (
                Link(run["run"], store.address(run["experiment_id"], run["run_id"])),
                run["run_key"],
                run["state"] + reason,
                commit + (" (dirty)" if run["git_dirty"] == "true" else ""),
                *(run[name] or ABSENT for name in ("machine", "device", "precision")),
                ABSENT if pd.isna(run["started"]) else f"{run['started']:%Y-%m-%d %H:%M}",
                *(_number(run[name], 0 if name == "best/epoch" else 2) for name in (*numbers, "test/ece")),
            )
        )
    note = (
        "Last: after the last epoch. Best: of the epoch with the lowest test error, counted from 0. Minutes of "
        "training and testing. The links open while the MLflow UI runs (make ui)."
    )
    energy = () if measured else ("Energy: not measured; no machine here told it.",)
    return Table(f"Runs, {pool.name}", tuple(columns), (Block("", (tuple(rows),)),), pool.runs, (), (note, *energy))


def settings_table(pool: Pool) -> Table:
    """A row a setting: the values that the pool's runs have, and the cells that have each."""
    names = sorted(name for name in pool.runs if name.startswith("params.") and name not in OWN)
    runs = pool.runs.assign(cell=pool.runs.cell_key.map(pool.cells.set_index("cell_key").cell))
    cells = list(dict.fromkeys(runs.cell))
    rows, records = [], []
    for name in names:
        values: dict[str, list[str]] = {}
        for value, own in runs.dropna(subset=[name]).groupby(name, sort=False).cell:
            values[str(value)] = list(dict.fromkeys(own))
        for value, having in values.items():
            message = "all" if len(having) == len(cells) else ", ".join(having)
            rows.append((name.removeprefix("params."), value, message))
            records.append({"setting": name.removeprefix("params."), "value": value, "cells": message})
    columns = (Column("setting"), Column("value"), Column("of the cells"))
    blocks = (Block("", (tuple(rows),)),) if rows else ()
    return Table(f"Settings, {pool.name}", columns, blocks, pd.DataFrame(records))


def _number(value: float, decimals: int) -> str:
    return ABSENT if value is None or math.isnan(value) else f"{value:.{decimals}f}"
