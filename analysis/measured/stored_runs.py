"""The runs of a file as an experiment, so that runs of other machines are judged with those that are tracked here."""

import json
from pathlib import Path

import pandas as pd

from analysis.load.frames import NAME, Experiment, format_count, with_columns
from analysis.load.pools import Pool, pools
from analysis.measured.csv_files import DATES, RUN_NUMBERS, to_numbers
from analysis.measured.runs import column_of
from cskd.evaluate.metrics import all_metrics
from cskd.utils.errors import UserError, first_line

PREFIX = "params."


def settings_texts(runs: pd.DataFrame) -> list[str]:
    """Return the column ``settings`` of tracked runs: every setting but the seed, as JSON."""
    names = [name for name in runs if name.startswith(PREFIX) and name != f"{PREFIX}seed"]
    records = runs[names].rename(columns=lambda name: name.removeprefix(PREFIX)).to_dict("records")
    return [
        json.dumps({name: value for name, value in record.items() if not pd.isna(value)}, sort_keys=True)
        for record in records
    ]


def with_stored_runs(pool: Pool, rows: pd.DataFrame, path: Path) -> tuple[Pool, list[str]]:
    """Return a pool with the runs of its file that are not tracked here, and notes.

    The predictions of these runs are unknown, so their comparisons are over seeds only. Runs without settings in the
    file are left out, since their settings may differ from the others'.

    Args:
        rows: of the file, as text.
        path: the file, for messages.

    Raises UserError for a number, a date or settings that cannot be read.
    """
    elsewhere = rows[~rows.run_key.isin(pool.done.run_key)]
    known = elsewhere[elsewhere.settings != ""]
    unknown = len(elsewhere) - len(known)
    notes = [f"{format_count(unknown, 'run')} of {path} without settings: not compared with others."] if unknown else []
    if known.empty:
        return pool, notes
    [joined] = pools([*pool.experiments, _experiment(pool, known, path)])
    return joined, notes


def _experiment(pool: Pool, rows: pd.DataFrame, path: Path) -> Experiment:
    rows = to_numbers(rows, path, ("seed", *RUN_NUMBERS), DATES).reset_index(drop=True)
    if (rows.seed % 1 != 0).any():
        raise UserError(f"{path}, column seed: not all are whole numbers: correct it")
    settings = pd.DataFrame([_settings(text, path) for text in rows.settings]).add_prefix(PREFIX)
    rows = rows.astype({"seed": int}).assign(
        comparable=rows.comparable == "true", cell=rows[NAME].agg("/".join, axis=1)
    )
    rows["run"] = rows.cell + "/seed" + rows.seed.astype(str)
    cells = rows.drop_duplicates("cell_key").reset_index(drop=True)
    planned = rows.groupby("cell_key").seed.agg(list)
    cells = cells.assign(grid=cells.grids, grid_order=cells.index, seeds_planned=cells.cell_key.map(planned))
    values = {metric.last: rows[column_of(name)] for name, metric in all_metrics().items() if column_of(name) in rows}
    runs = with_columns(pd.concat([rows, settings, pd.DataFrame(values)], axis=1))
    return Experiment(path.name, pool.profile, cells, runs, (), pool.tuned, pool.overrides)


def _settings(text: str, path: Path) -> dict[str, str]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}, column settings: {first_line(error)}: correct it") from error
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise UserError(f"{path}, column settings: not a JSON object of texts: correct it")
    return settings
