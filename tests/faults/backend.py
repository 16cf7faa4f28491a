"""Reads a tracking database with SQL, past MLflow, and compares it with the run folders."""

import sqlite3
from pathlib import Path

import pytest

from experiments.runs.folder import RunFolder

RESULTS = {"predictions.npz", "weights.pt", "environment.json", "spec.json", "reliability.png"}
CLOCKS = ("time/", "system/")  # differ if an epoch was trained again after its checkpoint was damaged
SINGLE = ("best/", "minutes", "energy_kilojoules")  # metrics with one point


def rows(database: Path, query: str, *values) -> list[tuple]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def tagged(database: Path, **tags: str) -> list[tuple[str, str, str]]:
    """Return (run, status, artifact URI) of the active runs that have these tags."""
    query = "SELECT run_uuid, status, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
    query += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)" * len(tags)
    return rows(database, query, *(text for tag in tags.items() for text in tag))


def assert_uploaded_once(database: Path, folders: list[RunFolder], artifacts: Path | None = None) -> None:
    """Check that every training is one finished MLflow run with its settings and every metric of every epoch once.

    artifacts: the folder of a server's artifacts.
    """
    specs = {folder.path.name: folder.spec() for folder in folders}
    for folder in folders:
        spec = specs[folder.path.name]
        ((run, status, _),) = tagged(database, kind="run", run_key=spec.run_key, training_id=folder.training_id())
        assert status == "FINISHED"
        points = rows(database, "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, step", run)
        single = [name for name, *_ in points if name.startswith(SINGLE)]
        assert len(set(single)) == len(single)
        points = [point for point in points if point[0] not in single]
        expected = sorted(
            (name, one["epoch"], value) for one in folder.epochs() for name, value in one["metrics"].items()
        )
        assert [point[:2] for point in points] == [point[:2] for point in expected]
        uploaded, recorded = (
            [value for name, _, value in values if not name.startswith(CLOCKS)] for values in (points, expected)
        )
        assert uploaded == pytest.approx(recorded)
        setting = "SELECT value FROM params WHERE run_uuid = ? AND key = 'seed'"
        assert rows(database, setting, run) == [(str(spec.seed),)]
        if artifacts is not None:
            assert {path.name for path in artifacts.glob(f"*/{run}/artifacts/*")} == RESULTS
        ((parent, status, _),) = tagged(database, kind="cell", cell_key=spec.cell_key)
        tag = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'mlflow.parentRunId'"
        assert (status, rows(database, tag, run)) == ("FINISHED", [(parent,)])
        statistics = rows(database, "SELECT key, step FROM metrics WHERE run_uuid = ?", parent)
        assert len(set(statistics)) == len(statistics)
        assert ("seeds", sum(other.cell_key == spec.cell_key for other in specs.values())) in statistics
