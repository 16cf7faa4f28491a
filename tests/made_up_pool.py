"""Pools of made-up runs, without a tracking store, and evaluations of them."""

import numpy as np
import pandas as pd

from analysis.load.frames import CELL_MARKS, DONE, NUMBERS, Experiment
from analysis.load.pools import Pool, pools
from analysis.stats.evaluation import Evaluation
from cskd.evaluate.scores import reliability_bins

START = pd.Timestamp("2026-09-21T12:00:00Z")
COMMIT, MACHINE = "1111111111aaaaaaaaaa", "Example CPU @ 2.00GHz, 2 cores"


def made_up_pool(cells: dict, profile: str = "paper", settings: dict | None = None, experiment: str = "table1") -> Pool:
    """The pool of one experiment.

    cells: ``{"cifar100/resnet18/cs-kd": {seed: value}}``: a finished run of each seed, whose value is its top-1 error,
    or a dict of metrics by name. A state in the value's place is that of a run without results.
    settings: ``{cell: {setting: value}}`` where a cell's differ.
    """
    return pools([made_up_experiment(cells, profile, settings or {}, experiment)])[0]


def made_up_experiment(cells: dict, profile: str, settings: dict, name: str) -> Experiment:
    reason = "" if profile == "paper" else f"profile {profile}"
    cell_records, run_records, grid = [], [], name.split("-", maxsplit=1)[0]
    for order, (cell, seeds) in enumerate(cells.items()):
        shared = dict(zip(("dataset", "architecture", "method"), cell.split("/"), strict=True))
        shared |= {"cell_key": cell, "profile": profile, "comparable": not reason, "comparable_reason": reason}
        marks = dict.fromkeys(CELL_MARKS, "")
        cell_records.append(
            {**shared, **marks, "grid": grid, "seeds_planned": [0, 1, 2], "grid_order": order, "cell": cell}
        )
        trained = {"schedule.epochs": "200", "width": "64"} | settings.get(cell, {})
        for seed, value in seeds.items():
            state = value if isinstance(value, str) else DONE
            metrics = {"top1_error": value} if state == DONE and not isinstance(value, dict) else value
            values = {f"test/{key}": number for key, number in metrics.items()} if state == DONE else {}
            run_records.append(
                {
                    **dict.fromkeys(NUMBERS, np.nan),
                    **shared,
                    **values,
                    **{f"params.{key}": text for key, text in trained.items()},
                    **{"params.method": shared["method"], "params.seed": str(seed)},
                    **{"run": f"{cell}/seed{seed}", "run_id": f"{cell}:{seed}", "run_key": f"{cell}:{seed}"},
                    **{"seed": seed, "state": state, "reason": "", "started": START, "ended": START},
                    **{"git_commit": COMMIT, "git_dirty": "false", "machine": MACHINE},
                    **{"device": "cpu", "precision": "fp32", "artifact_uri": ""},
                }
            )
    columns = [
        *NUMBERS,
        "run",
        "run_id",
        "run_key",
        "cell_key",
        "dataset",
        "architecture",
        "method",
        "state",
        "started",
    ]
    runs = pd.DataFrame(run_records, columns=None if run_records else columns)
    return Experiment(name, pd.DataFrame(cell_records), runs, ())


def made_up_evaluations(
    pool: Pool, spread: float, metric: str = "top1_error", own: float = 0.0
) -> dict[str, Evaluation]:
    """Of every finished run: replicates that vary with std ``spread`` by method, and ``own`` by run.

    ``feature_spread`` is a hundredth of the run's top-1 error.
    """
    found = {}
    bins = reliability_bins(np.eye(2), [0, 1])
    for run in pool.done.to_dict("records"):
        shifts = [
            scale * np.random.default_rng(list(name.encode())).standard_normal(200)
            for scale, name in ((spread, run["method"]), (own, run["run_key"]))
        ]
        replicates = {metric: run[f"test/{metric}"] + sum(shifts)}
        separation = {"feature_spread": run["test/top1_error"] / 100}
        found[run["run_key"]] = Evaluation(run["run_key"], {}, {}, replicates, bins, *[np.empty(0)] * 2, separation)
    return found
