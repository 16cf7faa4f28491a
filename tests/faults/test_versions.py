"""Runs of another version of the suite, or of another commit, are named and never mixed in silently."""

import json
import sqlite3

import pytest
from mlflow import MlflowClient
from place import Place
from run_folders import make_grid

from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import pools
from analysis.load.store import Store
from analysis.tables.provenance import footer
from cskd import NUMERICS_VERSION
from cskd.utils.errors import UserError
from experiments.launch import build
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "a run tracked by another version of the suite or by another commit"
RUN = "digits/resnet10/cs-kd/seed0"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Place:
    """Three finished and tracked runs of one cell."""
    place = Place(tmp_path_factory.mktemp("tracked"))
    make_grid(place.runs, "cs-kd", seeds=3, epochs=2)
    sync_plan(place.uri, load_plans(place.runs)[0], place.runs)
    return place


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize(
    ("table", "key", "value", "used", "note"),
    [
        ("params", "numerics_version", "99", 3, "numerics version 99"),
        ("params", "numerics_version", None, 3, "numerics version unknown"),
        ("tags", "git_commit", f"{'c' * 40} {'d' * 40}", 3, f"{'c' * 12}, {'d' * 12}"),
        ("tags", "git_dirty", "true", 3, "digits/resnet10/cs-kd, seed 0: trained with uncommitted changes; used."),
        ("tags", "run_key", None, 2, "run_key"),
    ],
)
def test_changed_record_of_a_run_is_named(tracked, tally, tmp_path, table, key, value, used, note):
    database = tmp_path / "mlflow.db"
    source, copy = sqlite3.connect(tracked.folder / "mlflow.db"), sqlite3.connect(database)
    source.backup(copy)  # includes the write-ahead log
    source.close()
    statement = f"DELETE FROM {table}" if value is None else f"UPDATE {table} SET value = '{value}'"
    where = f"key = '{key}' AND run_uuid = (SELECT run_uuid FROM runs WHERE name = '{RUN}')"
    with copy:
        assert copy.execute(f"{statement} WHERE {where}").rowcount == 1
    copy.close()
    with tally:
        [experiment] = Store(f"sqlite:///{database}").load(["demo"])
        assert len(experiment.done) == used
        assert note in "\n".join([*footer(experiment), *data_quality_notes(pools([experiment])[0])])


CHANGES = {
    "cross-entropy": {"numerics_version": NUMERICS_VERSION + 1},
    "mixup": {"unknown_key": 3},
    "label-smoothing": {"seed": 7},
}


@pytest.mark.fault(FAULT)
def test_folders_with_changed_specs_are_not_uploaded_and_block_no_other(tally, tmp_path):
    place = Place(tmp_path)
    for method in (*CHANGES, "cs-kd"):
        make_grid(place.runs, method, seeds=1, epochs=2)
    for folder in place.folders():
        spec = json.loads(folder.spec_file.read_text())
        if spec["method"] in CHANGES:
            folder.spec_file.write_text(json.dumps(spec | CHANGES[spec["method"]]))
    with tally:
        with pytest.raises(UserError) as caught:
            sync_plan(place.uri, load_plans(place.runs)[0], place.runs)
        assert any(str(folder.path) in str(caught.value) for folder in place.folders())
        assert "\n" not in str(caught.value)
        client = MlflowClient(place.uri)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        (run,) = client.search_runs(ids, "tags.kind = 'run'")
        assert (run.data.tags["method"], run.info.status) == ("cs-kd", "FINISHED")


@pytest.mark.fault(FAULT)
def test_run_of_another_numerics_version_keeps_its_key_and_is_not_resumed(tally, tmp_path, monkeypatch):
    place = Place(tmp_path)
    make_grid(place.runs, "cs-kd", seeds=1, epochs=2)
    (folder,) = place.folders()
    with tally:
        monkeypatch.setattr("experiments.config.spec.NUMERICS_VERSION", NUMERICS_VERSION + 1)
        monkeypatch.setattr(build, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
        assert folder.spec().run_key == folder.path.name
        with pytest.raises(UserError, match="planned by another version of the suite"):
            build.build_trainer(folder.spec(), folder, None, "fp32")
