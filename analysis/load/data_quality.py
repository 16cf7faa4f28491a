"""The runs that a reader should look at twice, by name: nothing is used or dropped without a word."""

import math

from analysis.load.frames import DONE, NAME, named_seeds
from analysis.load.pools import Pool
from cskd import NUMERICS_VERSION
from cskd.evaluate.metrics import TRACKED

VERSION = "params.numerics_version"


def doubts(pool: Pool) -> list[str]:
    """A sentence on each unfinished run, and on each used one whose values or version give reason for doubt.

    What comes from uncommitted changes is one sentence a cell: it is often all of them.
    """
    found = [
        f"{'/'.join(cell)}, {named_seeds(runs.seed)}: from uncommitted changes, used."
        for cell, runs in pool.done[pool.done.git_dirty == "true"].groupby(NAME, sort=False)
    ]
    for run in pool.runs.to_dict("records"):
        name = run["run"]
        if run["state"] != DONE:
            reason = f" ({run['reason']})" if run["reason"] else ""
            found.append(f"{name} is {run['state']}{reason}: not used.")
            continue
        if not run["git_commit"]:
            found.append(f"{name} was tracked without its commit: used.")
        version = run.get(VERSION)
        if version != str(NUMERICS_VERSION):
            message = version if isinstance(version, str) else "unknown"
            found.append(f"{name} has numerics version {message}, this is {NUMERICS_VERSION}: used.")
        empty = [metric.last for metric in TRACKED if not math.isfinite(run[metric.last])]
        if empty:
            found.append(f"{name} has no finite {', '.join(empty)}: left out of what needs it.")
    return found
