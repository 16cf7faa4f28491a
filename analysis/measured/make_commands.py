"""The ``make`` commands that train given runs again."""

import json
import re
from collections.abc import Iterator

import pandas as pd

from analysis.load.pools import PAPER

TRAIN, DEMO, INGREDIENTS = "train", "demo", "ingredients"  # grids whose make target is their name
SHELL_SAFE = re.compile(r"[\w.+-]+=[\w.,:/\[\]+-]+")  # a setting that the shell leaves unchanged
LAUNCH = ["threads", "tuned", "overrides"]  # columns that become variables of every line


def make_commands(runs: pd.DataFrame) -> list[str]:
    """Return the ``make`` lines that train these runs and no others.

    runs: rows of a file of runs. A run of several grids is trained by the first one. Empty if a grid is unknown or an
    override cannot be written on a command line.
    """
    if (runs.grids == "").any():
        return []
    runs = runs.assign(grid=[min(grids.split()) for grids in runs.grids], seed=runs.seed.astype(int))
    commands = []
    for (threads, tuned, overrides), rows in runs.groupby(LAUNCH):
        settings = json.loads(overrides)
        if not all(map(SHELL_SAFE.fullmatch, settings)):
            return []
        variables = " TUNED=1" if tuned == "true" else ""
        variables += f' SET="{" ".join(settings)}"' if settings else ""
        variables += f" OMP_NUM_THREADS={threads}" if threads else ""
        commands += [f"make {line}{variables}" for line in _lines(rows)]
    return commands


def _lines(runs: pd.DataFrame) -> Iterator[str]:
    if (runs.grid == DEMO).any():
        yield DEMO
    for run in runs[runs.grid == TRAIN].itertuples():
        run_variables = f"METHOD={run.method} ARCHITECTURE={run.architecture} SEED={run.seed}"
        yield f"train DATASET={run.dataset} {run_variables}{_profile(run.profile)}"
    # Each command trains all combinations: join methods with equal seeds, then datasets with equal methods.
    methods: dict[tuple, list[str]] = {}
    grids = runs[~runs.grid.isin([TRAIN, DEMO])]
    cells = grids.groupby(["grid", "profile", "architecture", "dataset", "method"]).seed
    for (*cell, method), seeds in cells.agg(lambda values: tuple(sorted(set(values)))).items():
        methods.setdefault((*cell, seeds), []).append(method)
    datasets: dict[tuple, list[str]] = {}
    for (grid, profile, architecture, dataset, seeds), names in methods.items():
        datasets.setdefault((grid, profile, architecture, seeds, tuple(names)), []).append(dataset)
    for (grid, profile, architecture, seeds, names), joined in datasets.items():
        crossed = {"DATASETS": joined, "ARCHITECTURES": [architecture], "METHODS": names, "SEEDS": seeds}
        variables = " ".join(f"{name}={_quoted(values)}" for name, values in crossed.items())
        target = grid if grid == INGREDIENTS else f"reproduce-{grid}"
        yield f"{target}{_profile(profile)} {variables}"


def _profile(name: str) -> str:
    return "" if name == PAPER else f" PROFILE={name}"


def _quoted(values) -> str:
    text = " ".join(map(str, values))
    return f'"{text}"' if " " in text else text
