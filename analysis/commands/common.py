"""The commands that train given runs."""

import re
from collections.abc import Iterator

import pandas as pd

TRAIN, DEMO = "train", "demo"
TUNED = re.compile(r"-tuned(-custom|$)")
SETTING = re.compile(r"[\w.+-]+=[\w.,:/\[\]+-]+")  # that a shell leaves as it is
THREADS = re.compile(r"cpu, (\d+) threads?")  # a device with its threads, which change a run's numbers


def make_commands(runs: pd.DataFrame, pool: str) -> list[str]:
    """The ``make`` lines that train these runs and no others, in the order of the grids.

    runs: with dataset, architecture, method, seed, profile, device, overrides and grids (names, a space between them)
    as the files of measured results have them; of several grids of a run the first is told. Empty where no line can
    tell it: of a pool with changed settings of which it is not known, or not in a form for the command line, what they
    are; and of runs whose grid is not known.
    """
    changes = _changes(runs, pool)
    if changes is None or (runs.grids == "").any():
        return []
    runs = runs.assign(grid=[min(grids.split()) for grids in runs.grids], seed=runs.seed.astype(int))
    variables = (" TUNED=1" if TUNED.search(pool) else "") + changes
    runs["threads"] = [found[1] if (found := THREADS.fullmatch(device)) else "" for device in runs.device]
    return [
        f"make {line}{variables}" + (f" OMP_NUM_THREADS={threads}" if threads else "")
        for threads, own in runs.groupby("threads")
        for line in _lines(own)
    ]


def _changes(runs: pd.DataFrame, pool: str) -> str | None:
    """What sets the pool's runs apart from the recipe, for the command line; None where it cannot be told."""
    if "-custom" not in pool:
        return ""
    message = set(runs.overrides)
    settings = message.pop().split(", ") if len(message) == 1 else []
    return f' SET="{" ".join(settings)}"' if settings and all(map(SETTING.fullmatch, settings)) else None


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
        message = " ".join(f"{variable}={_quoted(values)}" for variable, values in crossed.items())
        yield f"reproduce-{grid}{_profile(profile)} {message}"


def _profile(name: str) -> str:
    return "" if name == "paper" else f" PROFILE={name}"


def _quoted(values) -> str:
    text = " ".join(map(str, values))
    return f'"{text}"' if " " in text else text
