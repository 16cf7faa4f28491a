"""The commands that train given runs."""

import re
from collections.abc import Iterator

import pandas as pd

TRAIN, DEMO = "train", "demo"
THREADS = re.compile(r"cpu, (\d+) threads?")  # a device with its threads, which change a run's numbers


def make_commands(runs: pd.DataFrame, pool: str) -> list[str]:
    """The ``make`` lines that train these runs and no others, in the order of the grids.

    runs: with dataset, architecture, method, seed, profile, device and grids (names, a space between them) as the files
    of measured results have them; of several grids of a run the first is told. Empty where no line can tell it: of a
    pool with changed settings, whose name does not say which, and of runs whose grid is not known.
    """
    if "-custom" in pool or (runs.grids == "").any():
        return []
    runs = runs.assign(grid=[min(grids.split()) for grids in runs.grids], seed=runs.seed.astype(int))
    tuned = " TUNED=1" if pool.endswith("-tuned") else ""
    runs["threads"] = [found[1] if (found := THREADS.fullmatch(device)) else "" for device in runs.device]
    return [
        f"make {line}{tuned}" + (f" OMP_NUM_THREADS={threads}" if threads else "")
        for threads, own in runs.groupby("threads")
        for line in _lines(own)
    ]


def _lines(runs: pd.DataFrame) -> Iterator[str]:
    if (runs.grid == DEMO).any():
        yield DEMO
    for run in runs[runs.grid == TRAIN].itertuples():
        yield f"train DATASET={run.dataset} METHOD={run.method} ARCHITECTURE={run.architecture} SEED={run.seed}" + (
            _profile(run.profile)
        )
    # what is crossed with what: methods of the same seeds together, then datasets of the same methods
    methods: dict[tuple, list[str]] = {}
    cells = runs[~runs.grid.isin([TRAIN, DEMO])].groupby(["grid", "profile", "architecture", "dataset", "method"])
    for (*place, method), seeds in cells.seed.agg(lambda values: tuple(sorted(set(values)))).items():
        methods.setdefault((*place, seeds), []).append(method)
    datasets: dict[tuple, list[str]] = {}
    for (grid, profile, architecture, dataset, seeds), names in methods.items():
        datasets.setdefault((grid, profile, architecture, seeds, tuple(names)), []).append(dataset)
    for (grid, profile, architecture, seeds, names), found in datasets.items():
        crossed = {"DATASETS": found, "ARCHITECTURES": [architecture], "METHODS": names, "SEEDS": seeds}
        told = " ".join(f"{variable}={_quoted(values)}" for variable, values in crossed.items())
        yield f"reproduce-{grid}{_profile(profile)} {told}"


def _profile(name: str) -> str:
    return "" if name == "paper" else f" PROFILE={name}"


def _quoted(values) -> str:
    text = " ".join(map(str, values))
    return f'"{text}"' if " " in text else text
