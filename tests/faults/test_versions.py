"""Run folders whose spec another version of the suite wrote, or that was edited, are not uploaded."""

import json

import pytest
from builders import empty_store
from mlflow import MlflowClient
from place import Place
from run_folders import make_grid

from cskd import NUMERICS_VERSION
from cskd.utils.errors import UserError
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

CHANGES = {
    "cross-entropy": {"numerics_version": NUMERICS_VERSION + 1},
    "mixup": {"unknown_key": 3},
    "label-smoothing": {"seed": 7},
}


@pytest.mark.fault("a run tracked by another version of the suite or by another commit")
def test_folders_with_changed_specs_are_not_uploaded_and_block_no_other(tally, tmp_path):
    place = Place(tmp_path)
    empty_store(tmp_path)
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
