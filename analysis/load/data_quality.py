"""Notes on runs whose results need a second look."""

import math
from collections import Counter

from analysis.load.frames import DONE, NAME, format_count, format_seeds
from analysis.load.pools import Pool
from analysis.load.source import source_problem
from cskd import NUMERICS_VERSION
from cskd.evaluate.metrics import TRACKED


def data_quality_notes(pool: Pool) -> list[str]:
    """Return one note for each unfinished run, and for each finished run with a suspect value or version.

    Runs of a cell whose code is uncertain for the same reason share one note. One note names the metrics that runs lack
    because they are older than the metric.
    """
    problems = [source_problem(*run) for run in zip(pool.done.git_commit, pool.done.git_dirty, strict=True)]
    uncertain = pool.done.assign(problem=problems)[lambda runs: runs.problem != ""]
    notes = [
        f"{'/'.join(cell)}, {format_seeds(runs.seed)}: {problem}; used."
        for (*cell, problem), runs in uncertain.groupby([*NAME, "problem"], sort=False)
    ]
    for run in pool.runs.to_dict("records"):
        name = run["run"]
        if run["state"] != DONE:
            reason = f" ({run['reason']})" if run["reason"] else ""
            notes.append(f"{name} is {run['state']}{reason}: not used.")
            continue
        version = run.get("params.numerics_version")
        if version != str(NUMERICS_VERSION):
            version = version if isinstance(version, str) else "unknown"
            notes.append(f"{name} has numerics version {version}, the current one is {NUMERICS_VERSION}: used.")
        untracked = run["untracked"].split()
        names = [metric.last for metric in TRACKED if metric.last not in untracked]
        missing = [metric for metric in names if not math.isfinite(run[metric])]
        if missing:
            notes.append(f"{name} has no finite {', '.join(missing)}: left out of their means.")
    counts = Counter(name for untracked in pool.done.untracked for name in untracked.split())
    if counts:
        texts = [f"{name} in {format_count(count, 'run')}" for name, count in counts.items()]
        notes.append(f"Never tracked: {', '.join(texts)}. The metric's mean leaves these runs out.")
    return notes
