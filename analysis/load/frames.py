"""Data frames of the cells and runs of one tracked experiment.

Every value comes from a tag, a parameter or a metric. A cell or run that cannot be used is left out with a note.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from mlflow.entities import Run

from cskd.evaluate.metrics import TRACKED
from cskd.utils.errors import UserError

NAME = ["dataset", "architecture", "method"]
DONE = "done"
CELL_TAGS = ("cell_key", "grid", "profile", *NAME, "seeds_planned", "grid_order", "comparable", "comparable_reason")
CELL_MARKS = ("tuned_values", "hyperparameter_source")  # footnotes of a table row; "" if there is none
RUN_TAGS = ("run_key", "cell_key", "profile", *NAME, "seed", "comparable", "comparable_reason")
ENVIRONMENT = ("machine", "device", "threads", "precision", "compiled")
STATE_TAGS = ("state", "reason", "training_id", "git_commit", "git_dirty", "source_digest", *ENVIRONMENT)
# Columns that a frame of runs always has, even if no run has a value.
TEXTS = (
    *("run", "run_id", "experiment_id", "artifact_uri", "run_key", "cell_key", "profile", *NAME),
    *("comparable_reason", *STATE_TAGS, "untracked"),
)
DATES = ("started", "ended")
NUMBERS = (
    *("seed", "minutes", "best/epoch"),
    *(metric.last for metric in TRACKED),
    *(metric.best for metric in TRACKED if metric.at_best_epoch),
)
FILE_NAMES = ("grid", "profile", *NAME)  # tags that become parts of file names
SAFE_FILE_NAME = re.compile(r"[\w+ -][\w.+ -]*")
METHOD_SETTINGS = ("params.method", "params.teacher", "params.parameters.")  # prefixes of the settings of a method
INFINITY = 1e300  # MLflow's databases store an infinite value as the largest float


def file_part(name: str) -> str:
    """Return a name as a part of file names; that of an external network, such as timm:vit_tiny, has a colon."""
    return name.replace(":", "-")


@dataclass(frozen=True)
class Experiment:
    """One grid under one profile.

    name: the tag ``experiment``, such as "table1-mini".
    cells: one row per cell in the grid's order. Columns: CELL_TAGS (``seeds_planned`` is a list of int), ``cell``
        (dataset/architecture/method), ``tuned_values`` (the tuned hyper-parameters and their study) and
        ``hyperparameter_source`` ("paper", "ours" or "").
    runs: one row per seed in the same order. Columns: TEXTS, DATES (UTC), NUMBERS, ``comparable``, every other tracked
        metric, and each setting as ``params.<name>``. ``untracked``: the metrics of TRACKED without a value, even NaN.
    notes: what was left out, and why.
    tuned: True if the grid was launched with tuned hyper-parameters.
    overrides: the settings changed from the recipe, as "key=value".
    experiments: those of a pool.
    """

    name: str
    profile: str
    cells: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...] = ()
    tuned: bool = False
    overrides: tuple[str, ...] = ()
    experiments: tuple["Experiment", ...] = ()

    @property
    def title(self) -> str:
        """The name in headings."""
        return self.name

    @cached_property
    def done(self) -> pd.DataFrame:
        """The finished runs."""
        return self.runs[self.runs.state == DONE]

    @cached_property
    def settings(self) -> dict[str, dict[str, str]]:
        """The settings of the finished runs of each cell by cell key, except the seed and the method's own.

        Two cells may be compared only if these are equal.
        """
        first = self.done.drop_duplicates("cell_key")
        excluded = (*METHOD_SETTINGS, "params.seed")
        names = [name for name in first if name.startswith("params.") and not name.startswith(excluded)]
        records = zip(first.cell_key, first[names].to_dict("records"), strict=True)
        return {key: {name: value for name, value in of_cell.items() if not pd.isna(value)} for key, of_cell in records}


def read_experiment(
    name: str, cells: list[Run], runs: list[Run], tuned: bool = False, overrides: tuple[str, ...] = ()
) -> Experiment:
    """Return the frames of one experiment's cells and runs. Raises UserError if no cell can be used."""
    notes: list[str] = []
    cells = _distinct([run for run in cells if _is_usable_cell(run, notes)], notes)
    cells, runs = _without_superseded(cells, runs, notes)
    if not cells:
        reason = notes[0].removesuffix(".") if notes else "there is none"
        raise UserError(f"{name}: no cell can be read ({reason}): launch the grid again")
    cell_frame = pd.DataFrame([_cell_record(run) for run in cells])
    cell_frame = cell_frame.sort_values(["grid_order", "cell"], kind="stable", ignore_index=True)
    keys = set(cell_frame.cell_key)
    records = [_run_record(run) for run in runs if _has_tags(run, RUN_TAGS, notes) and _has_cell(run, keys, notes)]
    run_frame = _first_finished(with_columns(pd.DataFrame(records)), list(cell_frame.cell_key), notes)
    profile = cell_frame.profile.iloc[0]
    return Experiment(name, profile, cell_frame, run_frame, tuple(sorted(notes)), tuned, overrides)


def tracked_value(value: float) -> float:
    """Return a metric's value; values that MLflow's database stores in place of infinity become infinite."""
    return float(np.copysign(np.inf, value)) if abs(value) >= INFINITY else value


def format_seeds(seeds: Iterable[int]) -> str:
    """Return "seed 0", "seeds 0, 1" or, with three in a row, "seeds 0\N{EN DASH}4, 7"."""
    rows: list[list[int]] = []
    for seed in sorted(seeds):
        if rows and seed == rows[-1][-1] + 1:
            rows[-1].append(seed)
        else:
            rows.append([seed])
    texts = [f"{row[0]}\N{EN DASH}{row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows]
    return f"seeds {', '.join(texts)}" if sum(map(len, rows)) > 1 else f"seed {texts[0]}"


def format_count(number: int, noun: str) -> str:
    """Return "1 run" or "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _has_tags(run: Run, tags: tuple[str, ...], notes: list[str]) -> bool:
    missing = [tag for tag in tags if tag not in run.data.tags]
    if missing:
        notes.append(f"{run.info.run_name}: no tag {', '.join(missing)}: left out.")
    return not missing


def _has_cell(run: Run, keys: set[str], notes: list[str]) -> bool:
    has_cell = run.data.tags["cell_key"] in keys
    if not has_cell:
        notes.append(f"{run.info.run_name}: its cell is not tracked: left out.")
    return has_cell


def _is_usable_cell(run: Run, notes: list[str]) -> bool:
    if not _has_tags(run, CELL_TAGS, notes):
        return False
    unsafe = [tag for tag in FILE_NAMES if not SAFE_FILE_NAME.fullmatch(file_part(run.data.tags[tag]))]
    if unsafe:
        notes.append(f"{run.info.run_name}: its {', '.join(unsafe)} cannot be used in a file name: left out.")
    return not unsafe


def _distinct(cells: list[Run], notes: list[str]) -> list[Run]:
    """Return one MLflow run per cell. Launches on two machines may each have created one."""
    first: dict[str, Run] = {}
    for run in sorted(cells, key=lambda run: (run.info.start_time, run.info.run_id)):
        if first.setdefault(run.data.tags["cell_key"], run) is not run:
            notes.append(f"{run.info.run_name}: the cell is tracked twice: shown once, with the seeds of both.")
    return list(first.values())


def _without_superseded(cells: list[Run], runs: list[Run], notes: list[str]) -> tuple[list[Run], list[Run]]:
    """Return the cells and the runs without superseded cells and their runs."""
    superseded = [run for run in cells if run.data.tags.get("superseded") == "true"]
    if not superseded:
        return cells, runs
    keys = {run.data.tags["cell_key"] for run in superseded}
    current = [run for run in runs if run.data.tags.get("cell_key") not in keys]
    names = ", ".join(sorted({run.info.run_name for run in superseded}))
    counts = f"{format_count(len(superseded), 'cell')} with earlier settings ({names})"
    notes.append(f"Left out: {counts}, {format_count(len(runs) - len(current), 'run')}.")
    return [run for run in cells if run.data.tags["cell_key"] not in keys], current


def _first_finished(runs: pd.DataFrame, cell_keys: list[str], notes: list[str]) -> pd.DataFrame:
    """Return one row per seed, in the order of the cells. Of several trainings, the first finished one is used."""
    ordered = sort_runs(runs, cell_keys)
    repeated = ordered.duplicated(["cell_key", "seed"])
    notes += [f"{run}: trained more than once: the first finished training counts." for run in ordered.run[repeated]]
    return ordered[~repeated].reset_index(drop=True)


def sort_runs(runs: pd.DataFrame, cell_keys: list[str]) -> pd.DataFrame:
    """Return the runs by cell, seed, finished first, and start."""
    position = {key: number for number, key in enumerate(cell_keys)}
    order = runs.assign(position=runs.cell_key.map(position), unfinished=runs.state != DONE)
    order = order.sort_values(["position", "seed", "unfinished", "started", "run_id"], kind="stable")
    return order.drop(columns=["position", "unfinished"]).reset_index(drop=True)


def _cell_record(run: Run) -> dict:
    tags = run.data.tags
    return {
        **{tag: tags[tag] for tag in CELL_TAGS},
        "comparable": tags["comparable"] == "true",
        "seeds_planned": [int(seed) for seed in tags["seeds_planned"].split()],
        "grid_order": int(tags["grid_order"]),
        "cell": "/".join(tags[part] for part in NAME),
        "tuned_values": tags.get("tuned", ""),
        "hyperparameter_source": tags.get("hyperparameter_source", ""),
    }


def _run_record(run: Run) -> dict:
    tags, info = run.data.tags, run.info
    return {
        "run": f"{'/'.join(tags[part] for part in NAME)}/seed{tags['seed']}",
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "artifact_uri": info.artifact_uri,
        "started": pd.to_datetime(info.start_time, unit="ms", utc=True),
        "ended": pd.to_datetime(info.end_time, unit="ms", utc=True),
        **{tag: tags[tag] for tag in RUN_TAGS},
        **{tag: tags.get(tag, "") for tag in STATE_TAGS},
        "state": tags.get("state", "running"),  # the uploader writes it after the first epochs
        "seed": int(tags["seed"]),
        "comparable": tags["comparable"] == "true",
        "untracked": " ".join(metric.last for metric in TRACKED if metric.last not in run.data.metrics),
        **{f"params.{name}": value for name, value in run.data.params.items()},
        **{name: tracked_value(value) for name, value in run.data.metrics.items()},
        **{f"best/{name}": value for name, value in json.loads(tags.get("best_epoch", "{}")).items()},
    }


def with_columns(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of runs with every column that other modules read, even if it has no rows."""
    kinds = dict.fromkeys(TEXTS, "str") | dict.fromkeys(DATES, "datetime64[ms, UTC]") | dict.fromkeys(NUMBERS, "float")
    kinds |= {"seed": "int", "comparable": "bool"}
    for column, kind in kinds.items():
        if column not in runs:
            runs[column] = pd.Series(None, index=runs.index, dtype=kind)
    return runs.astype({"seed": int})
