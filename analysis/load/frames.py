"""Tracked cells and runs, read from MLflow into frames. Nothing is written to the store.

What cannot be used is left out and named in the notes, never dropped without a word.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run

from cskd import RECORDS_VERSION
from cskd.evaluate.metrics import TRACKED
from cskd.utils.errors import UserError

CELL_TAGS = (
    "cell_key",
    "grid",
    "profile",
    "dataset",
    "architecture",
    "method",
    "seeds_planned",
    "grid_order",
    "comparable",
    "comparable_reason",
)
CELL_MARKS = ("tuned", "hyperparameter_source")  # what a table says of a row; "" where there is nothing to say
RUN_TAGS = (
    *("run_key", "cell_key", "profile", "dataset", "architecture", "method", "seed"),
    *("comparable", "comparable_reason"),
)
STATE_TAGS = ("state", "reason", "git_commit", "git_dirty", "machine", "device", "precision")  # "" until known
# What a frame of runs has at least, whatever was tracked.
TEXTS = ("run", "run_id", "artifact_uri", *(tag for tag in RUN_TAGS if tag not in ("seed", "comparable")), *STATE_TAGS)
DATES = ("started", "ended")
NUMBERS = (
    *("seed", "minutes", "best/epoch"),
    *(metric.last for metric in TRACKED),
    *(metric.best for metric in TRACKED if metric.at_best_epoch),
)
NAME = ["dataset", "architecture", "method"]
FILE_NAMES = ("grid", "profile", *NAME)  # these become names of files; a store may be others' as well
SAFE = re.compile(r"[\w+ -][\w.+ -]*")
INFINITY = 1e300  # MLflow's databases keep an infinite value as the largest float
DONE = "done"


@dataclass(frozen=True)
class Experiment:
    """One grid under one profile, as tracked.

    cells: a row a cell in the grid's order, with columns CELL_TAGS (``seeds_planned`` a list, ``grid_order``
        an integer, ``comparable`` a boolean), ``tuned`` (hyper-parameters found by tuning, and where, or ""), ``hyperparameter_source`` (whose
        the recipe's are: paper, ours, or "" for none) and ``cell`` (dataset/architecture/method).
    runs: a row a seed in the same order, with columns RUN_TAGS (``seed`` an integer, ``comparable`` a boolean), STATE_TAGS, ``run``
        (its name), ``run_id``, ``artifact_uri``, ``started`` and ``ended`` (UTC), ``minutes``, the metrics
        ``test/*`` (last epoch), ``best/*`` and what else is tracked, and the settings as ``params.*``.
    notes: what was left out, and why. overrides: the settings changed from the recipe, "" where they are not tracked.
    """

    name: str
    cells: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...]
    overrides: str = ""

    @property
    def done(self) -> pd.DataFrame:
        """The runs that have results."""
        return self.runs[self.runs.state == DONE]


def experiment_of(name: str, cells: list[Run], runs: list[Run], overrides: str = "") -> Experiment:
    """Frames of one experiment's cells and runs."""
    notes = [note for run in (*cells, *runs) if (note := _not_readable(run))]
    cells, runs = ([run for run in kind if not _not_readable(run)] for kind in (cells, runs))
    usable = []
    for run in cells:
        lacking = [tag for tag in CELL_TAGS if tag not in run.data.tags]
        odd = [tag for tag in FILE_NAMES if not SAFE.fullmatch(run.data.tags.get(tag, ""))]
        if lacking:
            notes.append(f"{run.info.run_name}: tracked without {', '.join(lacking)}: left out.")
        elif odd:
            notes.append(f"{run.info.run_name}: its {', '.join(odd)} cannot be the name of a file: left out.")
        else:
            usable.append(run)
    usable = _once(usable, notes)
    replaced = [run for run in usable if run.data.tags.get("superseded") == "true"]
    if replaced:
        keys = {run.data.tags["cell_key"] for run in replaced}
        count = sum(run.data.tags.get("cell_key") in keys for run in runs)
        names = ", ".join(sorted({run.info.run_name for run in replaced}))
        left_out = f"{counted(len(replaced), 'cell')} with earlier settings ({names}), {counted(count, 'run')}"
        notes.append(f"Left out: {left_out}.")
        runs = [run for run in runs if run.data.tags.get("cell_key") not in keys]
        usable = [run for run in usable if run not in replaced]
    if not usable:
        why = notes[0].removesuffix(".") if notes else "there is none"
        raise UserError(f"no cell of {name} can be read ({why}): launch its grid again")
    cell_frame = pd.DataFrame([_cell_record(run) for run in usable], columns=[*CELL_TAGS, *CELL_MARKS, "cell"])
    cell_frame = cell_frame.sort_values(["grid_order", "cell"], kind="stable", ignore_index=True)
    records = []
    for run in runs:
        lacking = [tag for tag in RUN_TAGS if tag not in run.data.tags]
        if lacking:
            notes.append(f"{run.info.run_name}: tracked without {', '.join(lacking)}: left out.")
        elif run.data.tags["cell_key"] not in set(cell_frame.cell_key):
            notes.append(f"{run.info.run_name}: its cell is not tracked: left out.")
        else:
            records.append(_run_record(run))
    run_frame = pd.DataFrame(records)
    for column in (*TEXTS, *DATES, *NUMBERS):
        if column not in run_frame:
            kind = "str" if column in TEXTS else "datetime64[ms, UTC]" if column in DATES else "float"
            run_frame[column] = pd.Series(None, index=run_frame.index, dtype=kind)
    run_frame["order"] = run_frame.cell_key.map({key: row for row, key in enumerate(cell_frame.cell_key)})
    run_frame["seed"] = run_frame.seed.astype(int)
    run_frame["comparable"] = run_frame.get("comparable", pd.Series(dtype=bool)).astype(bool)
    # Of several runs of one seed the finished one that was started first counts.
    run_frame["unfinished"] = run_frame.state != DONE
    run_frame = run_frame.sort_values(["order", "seed", "unfinished", "started", "run_id"], ignore_index=True)
    again = run_frame.duplicated(["cell_key", "seed"])
    notes += [f"{run}: tracked more than once: the first finished one counts." for run in run_frame.run[again]]
    run_frame = run_frame[~again].drop(columns=["order", "unfinished"]).reset_index(drop=True)
    return Experiment(name, cell_frame, run_frame, tuple(sorted(notes)), overrides)


def _not_readable(run: Run) -> str:
    """Why a cell or run cannot be read by this version: its records are of another; "" where they can be."""
    version = run.data.tags.get("records_version", "1")
    if version == str(RECORDS_VERSION):
        return ""
    return f"{run.info.run_name}: its records are of version {version}, this reads {RECORDS_VERSION}: left out."


def _once(cells: list[Run], notes: list[str]) -> list[Run]:
    """One run a cell: two launches at once, on two machines, may both have made one."""
    first: dict[str, Run] = {}
    for run in sorted(cells, key=lambda run: (run.info.start_time, run.info.run_id)):
        if first.setdefault(run.data.tags["cell_key"], run) is not run:
            notes.append(f"{run.info.run_name}: its cell is tracked twice: shown once, with all its seeds.")
    return list(first.values())


def _cell_record(run: Run) -> dict:
    tags = {tag: run.data.tags[tag] for tag in CELL_TAGS}
    seeds = [int(seed) for seed in tags["seeds_planned"].split()]
    cell = "/".join(tags[part] for part in NAME)
    for tag in CELL_MARKS:  # cells from before there were such marks have none
        tags[tag] = run.data.tags.get(tag, "")
    values = {"seeds_planned": seeds, "grid_order": int(tags["grid_order"]), "comparable": tags["comparable"] == "true"}
    return tags | values | {"cell": cell}


def _run_record(run: Run) -> dict:
    tags = run.data.tags
    metrics = {name: tracked_value(value) for name, value in run.data.metrics.items()}
    return {
        "run": run.info.run_name,
        "run_id": run.info.run_id,
        "artifact_uri": run.info.artifact_uri,
        "started": pd.to_datetime(run.info.start_time, unit="ms", utc=True),
        "ended": pd.to_datetime(run.info.end_time, unit="ms", utc=True),
        **{tag: tags[tag] for tag in RUN_TAGS},
        **{tag: tags.get(tag, "") for tag in STATE_TAGS},
        "state": tags.get("state", "running"),  # written after the first epochs
        "seed": int(tags["seed"]),
        "comparable": tags["comparable"] == "true",
        **{f"params.{name}": value for name, value in run.data.params.items()},
        **metrics,
    }


def tracked_value(tracked: float) -> float:
    """A metric's value as it was before MLflow's database kept it."""
    return float(np.copysign(np.inf, tracked)) if abs(tracked) >= INFINITY else tracked


def named_seeds(seeds: Iterable[int]) -> str:
    """``seed 0``, or ``seeds 0, 1``."""
    names = ", ".join(map(str, seeds))
    return f"seeds {names}" if "," in names else f"seed {names}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
