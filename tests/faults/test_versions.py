"""Runs of another version of the suite, or of another commit: told apart, never mixed into a table unnoticed."""

import json
import sqlite3

import pytest
from mlflow import MlflowClient
from place import Place
from run_folders import make_grid

from analysis.load import frames as reading
from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import pools
from analysis.load.store import Store
from analysis.tables.provenance import footer
from cskd import NUMERICS_VERSION, RECORDS_VERSION
from cskd.utils.errors import UserError
from experiments.launch import build as assemble
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "a run tracked by another version of the suite or by another commit"
RUN = "digits/resnet10/cs-kd/seed0"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Three finished runs of a cell, tracked by this version."""
    place = Place(tmp_path_factory.mktemp("tracked"))
    make_grid(place.runs, "cs-kd", seeds=3, epochs=2)
    sync_plan(place.uri, load_plans(place.runs)[0], place.runs)
    return place


def changed(tracked, folder, table, key, value, of=RUN):
    """The experiment as read after one tag or parameter of a run has become another's, or has gone."""
    path = folder / "mlflow.db"
    source, copy = sqlite3.connect(tracked.folder / "mlflow.db"), sqlite3.connect(path)
    source.backup(copy)  # with what still stands in its write-ahead log
    source.close()
    copy.close()
    where = f"key = '{key}' AND run_uuid = (SELECT run_uuid FROM runs WHERE name = '{of}')"
    with sqlite3.connect(path) as connection:
        statement = f"DELETE FROM {table}" if value is None else f"UPDATE {table} SET value = '{value}'"
        assert connection.execute(f"{statement} WHERE {where}").rowcount == 1
    connection.close()
    return Store(f"sqlite:///{path}").load(["demo"])[0]


def message(experiment) -> str:
    return "\n".join([*footer(experiment), *data_quality_notes(pools([experiment])[0])])


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize(
    ("table", "key", "value", "kept", "said"),
    [
        ("params", "numerics_version", "0", 3, f"Of numerics version 0, this is {NUMERICS_VERSION}: {RUN}."),
        ("params", "numerics_version", "99", 3, f"Of numerics version 99, this is {NUMERICS_VERSION}: {RUN}."),
        ("params", "numerics_version", None, 3, f"Of numerics version unknown, this is {NUMERICS_VERSION}: {RUN}."),
        ("tags", "records_version", "99", 2, f"{RUN}: its records are of version 99, this reads {RECORDS_VERSION}"),
        ("tags", "records_version", "x", 2, f"{RUN}: its records are of version x, this reads {RECORDS_VERSION}"),
        ("tags", "records_version", None, 3, ""),
        ("tags", "git_commit", "d" * 40, 3, f"{'d' * 12}"),
        ("tags", "git_commit", f"{'c' * 40} {'d' * 40}", 3, f"{'c' * 12}, {'d' * 12}"),
        ("tags", "git_dirty", "true", 3, "digits/resnet10/cs-kd, seed 0: from uncommitted changes, used."),
        ("tags", "run_key", None, 2, f"{RUN}: tracked without run_key: left out."),
    ],
)
def test_what_is_tracked_by_another_version_or_commit_is_named(tracked, tally, tmp_path, table, key, value, kept, said):
    with tally:
        experiment = changed(tracked, tmp_path, table, key, value)
        assert len(experiment.done) == kept
        assert said in message(experiment)


@pytest.mark.fault(FAULT)
def test_records_from_before_there_were_versions_are_read_by_the_first_only(tracked, tally, tmp_path, monkeypatch):
    with tally:
        monkeypatch.setattr(reading, "RECORDS_VERSION", RECORDS_VERSION + 1)
        with pytest.raises(UserError, match=f"its records are of version 1, this reads {RECORDS_VERSION + 1}"):
            changed(tracked, tmp_path, "tags", "records_version", None)


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("change", ["a later numerics version", "a key that is not known", "another run's spec"])
def test_a_run_folder_of_another_version_is_not_tracked_as_this_ones_and_keeps_no_other_back(tally, tmp_path, change):
    place = Place(tmp_path)
    make_grid(place.runs, "cross-entropy", seeds=1, epochs=2)
    first = load_plans(place.runs)[0]
    make_grid(place.runs, "cs-kd", seeds=1, epochs=2)
    (plan,) = load_plans(place.runs)
    victim = place.runs / first.cells[0].runs[0]
    raw = json.loads((victim / "spec.json").read_text())
    if change == "a later numerics version":
        raw["numerics_version"] = NUMERICS_VERSION + 1
    elif change == "a key that is not known":
        raw["invented_later"] = 3
    else:
        raw["seed"] = 7
    (victim / "spec.json").write_text(json.dumps(raw))
    with tally:
        with pytest.raises(UserError) as caught:
            sync_plan(place.uri, plan, place.runs)
        assert str(victim) in str(caught.value)
        assert "\n" not in str(caught.value)
        client = MlflowClient(place.uri)
        experiment = client.get_experiment_by_name("demo").experiment_id
        (run,) = client.search_runs([experiment], "tags.kind = 'run'")
        assert (run.data.tags["method"], run.info.status) == ("cs-kd", "FINISHED")


@pytest.mark.fault(FAULT)
def test_a_run_of_another_numerics_version_keeps_its_key_and_is_not_trained_on(tally, tmp_path, monkeypatch):
    place = Place(tmp_path)
    make_grid(place.runs, "cs-kd", seeds=1, epochs=2)
    (folder,) = place.folders()
    with tally:
        monkeypatch.setattr("experiments.config.spec.NUMERICS_VERSION", NUMERICS_VERSION + 1)
        monkeypatch.setattr(assemble, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
        assert folder.spec().run_key == folder.path.name
        with pytest.raises(UserError, match="planned by another version of the suite"):
            assemble.build_trainer(folder.spec(), folder, None, "fp32")
