"""Every tracked run with its environment and results, and every setting."""

import pandas as pd

from analysis.load.frames import Experiment
from analysis.load.pools import Pool
from analysis.load.source import commit_texts
from analysis.load.store import Store
from analysis.tables.model import Column, Link, Row, Table, plain_table
from analysis.tables.provenance import ENVIRONMENT
from cskd.evaluate.metrics import TRACKED, all_metrics
from cskd.utils.numbers import ABSENT, number_text

IN_RUN_NAME = ("params.seed", "params.method", "params.dataset", "params.architecture")
ENERGY = "energy_kilojoules"
IDENTITY = (
    *("run_key", "profile", "architecture", "dataset", "method", "seed", "state", "reason"),
    *("comparable", "comparable_reason"),
    *("git_commit", "git_dirty", "source_digest", *ENVIRONMENT),
)
NOTE = (
    "Last: after the last epoch. Best: the epoch with the lowest test error, counted from 0. Minutes of training and "
    "testing. The links work while the MLflow UI runs (make ui)."
)


def run_frame(experiment: Experiment) -> pd.DataFrame:
    """Return one row per run: identity, environment, every metric at its last and best test epoch (counted from 0)."""
    runs = experiment.runs
    columns = {column: runs[column] for column in IDENTITY}
    columns |= {column: runs[column].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for column in ("started", "ended")}
    columns |= {"minutes": runs.minutes}
    columns |= {f"last_{metric.name}": runs[metric.last] for metric in TRACKED}
    columns |= {"best_epoch": runs["best/epoch"]}
    columns |= {f"best_{metric.name}": runs[metric.best] for metric in TRACKED if metric.at_best_epoch}
    return pd.DataFrame(columns)


def run_table(pool: Pool, store: Store) -> Table:
    """Return one row per run, finished or not, with a link to it in the MLflow UI."""
    has_energy = ENERGY in pool.runs and pool.runs[ENERGY].notna().any()
    error, ece = all_metrics()["top1_error"], all_metrics()["ece"]
    numbers = [  # (header, column, decimals)
        ("minutes", "minutes", 2),
        *([("energy (kJ)", ENERGY, 2)] if has_energy else []),
        (f"last {error.label}", error.last, error.decimals),
        (f"best {error.label}", error.best, error.decimals),
        ("best epoch", "best/epoch", 0),
        (f"last {ece.label}", ece.last, ece.decimals),
    ]
    texts = ("run", "run key", "state", "commit", *ENVIRONMENT, "started (UTC)")
    columns = [*map(Column, texts), *(Column(header, number=True) for header, *_ in numbers)]
    rows = [
        (*_identity(run, store), *(number_text(run[column], decimals) for _, column, decimals in numbers))
        for run in pool.runs.to_dict("records")
    ]
    notes = [NOTE] if has_energy else [NOTE, "Energy: not measured; no machine reported it."]
    return plain_table(f"Runs, {pool.title}", columns, rows, pool.runs, notes)


def _identity(run: dict, store: Store) -> Row:
    return (
        Link(run["run"], store.address(run["experiment_id"], run["run_id"])),
        run["run_key"],
        run["state"] + (f" ({run['reason']})" if run["reason"] else ""),
        ", ".join(commit_texts([run["git_commit"]], [run["git_dirty"]])),
        *(run[name] or ABSENT for name in ENVIRONMENT),
        ABSENT if pd.isna(run["started"]) else f"{run['started']:%Y-%m-%d %H:%M}",
    )


def settings_table(pool: Pool) -> Table:
    """Return one row per setting and value, with the cells whose runs have this value."""
    names = sorted(name for name in pool.runs if name.startswith("params.") and name not in IN_RUN_NAME)
    runs = pool.runs.assign(cell=pool.runs.cell_key.map(pool.cells.set_index("cell_key").cell))
    rows = []
    for name in names:
        for value, cells in runs.dropna(subset=[name]).groupby(name, sort=False).cell:
            with_value = list(dict.fromkeys(cells))
            shown = "all" if len(with_value) == runs.cell.nunique() else ", ".join(with_value)
            rows.append((name.removeprefix("params."), str(value), shown))
    columns = (Column("setting"), Column("value"), Column("cells"))
    frame = pd.DataFrame(rows, columns=["setting", "value", "cells"])
    return plain_table(f"Settings, {pool.title}", columns, rows, frame)
