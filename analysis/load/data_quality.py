"""Notes on runs whose results need a second look."""

import math

from analysis.load.frames import DONE, NAME, format_seeds
from analysis.load.pools import Pool
from cskd import NUMERICS_VERSION
from cskd.evaluate.metrics import TRACKED


def data_quality_notes(pool: Pool) -> list[str]:
    """Return one note for each unfinished run, and for each finished run with a suspect value or version.

    Runs from uncommitted changes, or of an unknown version of the code, share one note per cell.
    """
    notes = [
        f"{'/'.join(cell)}, {format_seeds(runs.seed)}: trained {code}; used."
        for flag, code in (("true", "with uncommitted changes"), ("unknown", "by code of an unknown version"))
        for cell, runs in pool.done[pool.done.git_dirty == flag].groupby(NAME, sort=False)
    ]
    for run in pool.runs.to_dict("records"):
        name = run["run"]
        if run["state"] != DONE:
            reason = f" ({run['reason']})" if run["reason"] else ""
            notes.append(f"{name} is {run['state']}{reason}: not used.")
            continue
        if not run["git_commit"]:
            notes.append(f"{name} has no recorded commit: used.")
        version = run.get("params.numerics_version")
        if version != str(NUMERICS_VERSION):
            version = version if isinstance(version, str) else "unknown"
            notes.append(f"{name} has numerics version {version}, the current one is {NUMERICS_VERSION}: used.")
        missing = [metric.last for metric in TRACKED if not math.isfinite(run[metric.last])]
        if missing:
            notes.append(f"{name} has no finite {', '.join(missing)}: left out of their means.")
    return notes
