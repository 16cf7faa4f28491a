"""The heat map: its numbers, its marks, and points without a result."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from studies import metrics_of

from cskd.plots import INK, VERMILION
from cskd.utils.numbers import TWO_LINES, mean_std_text
from experiments.runs.folder import RunFolder
from experiments.tuning.figures import (
    NOT_ENDED,
    NOT_RUN,
    grid_points,
    heat_map,
)
from experiments.tuning.space import load_space
from experiments.tuning.trial import COMPLETE, FAILED, RUNNING, Trial

SPACE = load_space("cs-kd", "paper")
RECIPE = {"temperature": 4.0, "lambda_cls": 1.0}


def make_trial(number: int, state: str, temperature: float, weight: float, **results) -> Trial:
    return Trial(number, state, {"temperature": temperature, "lambda_cls": weight}, **results)


def make_complete(number: int, temperature: float, weight: float, errors: list[float], folder, nll=1.0) -> Trial:
    """Return a complete trial with an error a seed, and write its run folders. The ECE is a tenth of the error."""
    runs, records = {}, [metrics_of(error, nll, error / 10) for error in errors]
    for seed, record in enumerate(records, start=1000):
        runs[seed] = f"run{number}-{seed}"
        (folder / runs[seed]).mkdir()
        metrics = {f"validation/{name}": value for name, value in record.items()}
        RunFolder(folder / runs[seed]).write_epochs([{"epoch": 0, "timestamp": 0.0, "metrics": metrics}])
    means = {name: float(np.mean([record[name] for record in records])) for name in records[0]}
    return make_trial(number, COMPLETE, temperature, weight, values=(means["top1_error"],), metrics=means, runs=runs)


@pytest.fixture
def trials(tmp_path) -> list[Trial]:
    """Return trials of two seeds. T 1, lambda 2 has the lowest error, by its NLL; two points have no trial."""
    return [
        make_complete(0, 4.0, 1.0, [20.0, 23.0], tmp_path),
        make_trial(1, FAILED, 4.0, 3.0),
        make_complete(2, 1.0, 3.0, [10.0, 12.0], tmp_path, nll=1.2),
        make_complete(3, 1.0, 2.0, [9.0, 13.0], tmp_path, nll=1.1),
        make_complete(4, 4.0, 3.0, [30.0, 31.0], tmp_path),
        make_trial(5, FAILED, 4.0, 4.0),
        make_trial(6, RUNNING, 1.0, 4.0),
    ]


def test_every_grid_point_has_mean_and_std_or_a_state(trials, tmp_path):
    points = {tuple(point.parameters.values()): point for point in grid_points(SPACE, trials, tmp_path, RECIPE)}
    assert set(points) == {(t, w) for t in (1, 4) for w in (1, 2, 3, 4)}
    states = {values: point.state for values, point in points.items() if point.state != COMPLETE}
    assert states == {(1, 1): NOT_RUN, (4, 2): NOT_RUN, (4, 4): FAILED, (1, 4): NOT_ENDED}
    assert points[1, 2].mean == pytest.approx({"error": 11, "top5_error": 5.5, "nll": 1.1, "brier": 0.5, "ece": 1.1})
    assert (points[1, 2].std["error"], points[1, 2].std["ece"]) == pytest.approx((8**0.5, 0.08**0.5))
    assert points[4, 3].mean["error"] == 30.5  # of the complete trial, not of the failed one
    assert [values for values, point in points.items() if point.is_recipe] == [(4, 1)]


def test_missing_run_folders_leave_the_mean_without_std(trials, tmp_path):
    points = grid_points(SPACE, trials, tmp_path / "elsewhere", RECIPE)
    assert [point.std for point in points if point.mean] == [{}] * 4
    assert cell_texts(heat_map("title", SPACE, points).axes[0])[4, 1] == "21.50"


def cell_texts(axes) -> dict[tuple[float, float], str]:
    """Return the text of each cell by (temperature, lambda_cls)."""
    rows, columns = (
        [float(label.get_text()) for label in labels()] for labels in (axes.get_yticklabels, axes.get_xticklabels)
    )
    return {(rows[round(t.get_position()[1])], columns[round(t.get_position()[0])]): t.get_text() for t in axes.texts}


def two_lines(mean: float, std: float) -> str:
    return mean_std_text(mean, std, 2, separator=TWO_LINES)


def marked_cells(axes, color: str) -> list[tuple[int, int]]:
    """Return (row, column) of the markers of a colour."""
    offsets = [marker.get_offsets()[0] for marker in axes.collections if to_hex(marker.get_facecolor()[0]) == color]
    return [(round(float(y)), round(float(x))) for x, y in offsets]


def test_heat_map_shows_numbers_states_and_marks(trials, tmp_path):
    error, ece, *_ = heat_map("title", SPACE, grid_points(SPACE, trials, tmp_path, RECIPE)).axes
    assert cell_texts(error) == {
        (1, 1): "not run", (1, 2): two_lines(11, 2.83), (1, 3): two_lines(11, 1.41), (1, 4): "not ended",
        (4, 1): two_lines(21.5, 2.12), (4, 2): "not run", (4, 3): two_lines(30.5, 0.71), (4, 4): "failed",
    }  # fmt: skip
    assert cell_texts(ece)[4, 1] == two_lines(2.15, 0.21)
    assert (error.get_ylabel(), error.get_xlabel()) == ("temperature", "lambda_cls")
    for axes in (error, ece):
        assert marked_cells(axes, VERMILION) == [(0, 1)]  # T 1, lambda 2
        assert marked_cells(axes, INK) == [(1, 0)]  # T 4, lambda 1
        hatched = {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in axes.patches if p.get_hatch()}
        assert hatched == {(0, 0), (0, 3), (1, 1), (1, 3)}
        means = axes.images[0].get_array()
        assert means.mask.tolist() == [[True, False, False, True], [False, True, False, True]]
