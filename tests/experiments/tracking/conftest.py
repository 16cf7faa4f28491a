import pytest
from builders import empty_store
from matplotlib.figure import Figure


@pytest.fixture
def uri(tmp_path) -> str:
    return empty_store(tmp_path)


@pytest.fixture
def small_figures(monkeypatch):
    """Replace figures, which take more time than everything else."""
    monkeypatch.setattr("experiments.tracking.cells.curves_figure", lambda *arguments: Figure((1, 1)))
    monkeypatch.setattr("experiments.tracking.records.reliability_figure", lambda *arguments: Figure((1, 1)))
