"""The command status beside damage. ``test_grid`` and ``launch/test_slurm`` test what it shows otherwise."""

import pytest
from run_folders import make_run, make_spec, plan_of

from experiments.runs.folder import RunFolder


@pytest.mark.parametrize("text", ["", "{"])
def test_damaged_run_is_named_beside_the_others(call, tmp_path, text):
    runs = tmp_path / "runs"
    specs = [make_run(runs, make_spec(seed)) for seed in (0, 1)]
    specs.append(make_spec(2))  # without a folder
    plan_of(*specs).save(runs)
    RunFolder.of(specs[0], runs).metrics.write_text(text)
    status, output, _ = call("experiments status")
    assert (status, "│ damaged │ 31.00 % │ missing" in output) == (0, True)
