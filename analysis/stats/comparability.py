"""Comparability of cells with the paper."""

import pandas as pd

from analysis.load.frames import Experiment


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
