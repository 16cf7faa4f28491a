"""What a tracking database holds, read past MLflow, and whether it is what the run folders have: all of it, once."""

import sqlite3
from pathlib import Path

import pytest

from experiments.runs.folder import RunFolder

RESULTS = {"predictions.npz", "weights.pt", "environment.json", "spec.json", "reliability.png"}


def rows(database: Path, query: str, *values) -> list[tuple]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def tagged(database: Path, **tags: str) -> list[tuple[str, str, str]]:
    """(run, status, artifacts) of the runs with these tags that are not deleted."""
    found = rows(database, "SELECT run_uuid, status, artifact_uri FROM runs WHERE lifecycle_stage = 'active'")
    for name, value in tags.items():
        having = {
            run for (run,) in rows(database, "SELECT run_uuid FROM tags WHERE key = ? AND value = ?", name, value)
        }
        found = [row for row in found if row[0] in having]
    return found


def assert_told_once(database: Path, folders: list[RunFolder], artifacts: Path | None = None) -> None:
    """Every finished run is one MLflow run, FINISHED, with every metric of every epoch once, and its settings.

    artifacts: the folder below which a server keeps them.
    """
    for folder in folders:
        (found,) = tagged(database, kind="run", run_key=folder.path.name)
        run, status, _ = found
        assert status == "FINISHED"
        points = rows(database, "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, step", run)
        ours = sorted((name, one["epoch"], value) for one in folder.epochs() for name, value in one["metrics"].items())
        single = [point for point in points if point[0].startswith("best/") or point[0] in ("minutes", ENERGY)]
        assert len({name for name, *_ in single}) == len(single)
        points = [point for point in points if point not in single]
        assert [point[:2] for point in points] == [point[:2] for point in ours]
        assert [point[2] for point in points] == pytest.approx([point[2] for point in ours])
        assert rows(database, "SELECT value FROM params WHERE run_uuid = ? AND key = 'seed'", run) == [
            (str(folder.spec().seed),)
        ]
        if artifacts is not None:
            assert {path.name for path in artifacts.glob(f"*/{run}/artifacts/*")} == RESULTS
        (parent,) = tagged(database, kind="cell", cell_key=folder.spec().cell_key)
        message = rows(database, "SELECT value FROM tags WHERE run_uuid = ? AND key = 'mlflow.parentRunId'", run)
        assert message == [(parent[0],)]
        assert parent[1] == "FINISHED"
        summary = rows(database, "SELECT key, step FROM metrics WHERE run_uuid = ?", parent[0])
        assert len(set(summary)) == len(summary)
        seeds = sum(other.spec().cell_key == folder.spec().cell_key for other in folders)
        assert ("seeds", seeds) in summary


ENERGY = "energy_kilojoules"
