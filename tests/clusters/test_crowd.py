"""Many growing runs against a real MLflow server, as ``python -m clusters.crowd`` measures them."""

import pytest
from clusters.crowd import measure
from faults.servers import Server
from place import Place


@pytest.mark.cluster("MLflow's server with 100 growing runs")
def test_no_run_is_lost_in_a_crowd(tally, tmp_path):
    with tally, Server(tmp_path) as server:
        figures = measure(Place(tmp_path), server, 100, epochs=3, seconds=15.0, done=3)
        assert figures.lost == 0
