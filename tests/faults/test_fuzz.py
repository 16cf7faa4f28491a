"""Random recipes, grids, command lines and environments: an error of one line, or a plan that can start."""

import pytest
from faults.fuzzing import Fuzzing
from faults.odd import elsewhere, grids, launched, mistyped, overridden, recipes
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from place import Place

from cskd.data import prepare as catalog
from cskd.data.prepare import prepare
from cskd.utils.errors import UserError
from experiments.launch import estimate

FAULT = "recipe, grid and command-line fuzzing"
CASES = st.one_of(*3 * [overridden()], launched(), *2 * [mistyped()], *2 * [recipes()], grids(), elsewhere())


@pytest.fixture
def fuzzing(tmp_path, monkeypatch) -> Fuzzing:
    """Prepared digits, no network, and little memory, so that every case is short."""
    place = Place(tmp_path)
    prepare("digits", tmp_path / "data")

    def no_network(archive, folder, report):
        raise UserError(f"{archive.filename} cannot be downloaded")

    monkeypatch.setattr(catalog, "download", no_network)
    monkeypatch.setattr(estimate, "PROBE_PIXELS", 0)  # the smallest batch
    monkeypatch.setattr(estimate, "free_memory", lambda device: 100_000_000)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Fuzzing(place)


@pytest.mark.fault(FAULT)
def test_random_input_gives_one_error_line_or_a_plan_that_can_start(tally, fuzzing):
    lost = []

    @settings(
        max_examples=tally.cases(1995, 150),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES)
    def try_case(case):
        try:
            with tally:
                fuzzing.try_case(case)
        except Exception as error:
            lost.append(f"{case}: {type(error).__name__}: {error}")

    try_case()
    assert not lost, "\n".join(lost)
