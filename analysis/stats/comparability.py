"""Comparability of cells with the paper, and with each other."""

import pandas as pd

from analysis.load.frames import Experiment

METHOD_SETTINGS = ("params.method", "params.teacher", "params.parameters.")  # prefixes of the settings of a method


def comparability(experiment: Experiment) -> pd.DataFrame:
    """Return, by cell key, ``comparable`` (bool) and ``comparable_reason`` ("" if comparable).

    experiment: an experiment or a pool. A cell is comparable with the paper if it and all its finished runs are marked
        so. In a pool, this must hold in every experiment.
    """
    sources = (experiment, *experiment.experiments)
    columns = ["cell_key", "comparable", "comparable_reason"]
    cells = pd.concat([frame[columns] for source in sources for frame in (source.cells, source.done)])
    cells = cells.astype({"comparable": bool}).sort_values("comparable", kind="stable")  # False comes first
    return cells.drop_duplicates("cell_key").set_index("cell_key").loc[experiment.cells.cell_key]


def settings_of(runs: pd.DataFrame) -> dict[str, str]:
    """Return the settings of a cell's finished runs, except the seed and the method's own; {} without a run.

    Two cells may be compared only if these are equal.
    """
    excluded = (*METHOD_SETTINGS, "params.seed")
    names = [name for name in runs.columns if name.startswith("params.") and not name.startswith(excluded)]
    return {} if runs.empty else runs.iloc[0][names].dropna().to_dict()
