"""Heat maps of studies over a grid of two hyper-parameters: the numbers, the marks, and what was not measured."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cskd.plots import INK, VERMILION, save_figure
from experiments.runs.folder import RunFolder
from experiments.tuning.heatmap import (
    COLORS,
    NOT_ENDED,
    NOT_RUN,
    grid_points,
    heat_map,
    is_plane,
    readable_on,
)
from experiments.tuning.space import load_space
from experiments.tuning.trial import COMPLETE, FAILED, RUNNING, Trial

SPACE = load_space("cs-kd", "paper")
RECIPE = {"temperature": 4.0, "lambda_cls": 1.0}


def trial(number: int, state: str, point: dict, runs: dict[int, str], metrics: dict[str, float]) -> Trial:
    values = (metrics["top1_error"],) if metrics else None
    return Trial(number, state, point, values, metrics, runs, "", None, None, {})


def complete(number: int, temperature: float, weight: float, errors: list[float], folder, nll: float = 1.0) -> Trial:
    """A complete trial with these errors of its seeds, whose ECE is a tenth of them, and its run folders."""
    records = [{"top1_error": error, "nll": nll, "ece": error / 10} for error in errors]
    runs = {}
    for seed, record in enumerate(records, start=1000):
        runs[seed] = f"run{number}-{seed}"
        (folder / runs[seed]).mkdir(parents=True)
        metrics = {f"validation/{name}": value for name, value in record.items()}
        RunFolder(folder / runs[seed]).write_epochs([{"epoch": 0, "timestamp": 1.7e9, "metrics": metrics}])
    means = {name: sum(record[name] for record in records) / len(records) for name in records[0]}
    return trial(number, COMPLETE, {"temperature": temperature, "lambda_cls": weight}, runs, means)


@pytest.fixture
def trials(tmp_path) -> list[Trial]:
    """Two seeds a trial. The lowest error is at T 1, lambda 2 by its NLL; T 4, lambda 3 has failed and then succeeded;
    T 4, lambda 4 has failed, T 1, lambda 4 goes on; T 1, lambda 1 and T 4, lambda 2 are not there.
    """
    return [
        complete(0, 4.0, 1.0, [20.0, 23.0], tmp_path),
        trial(1, FAILED, {"temperature": 4.0, "lambda_cls": 3.0}, {1000: "a"}, {}),
        complete(2, 1.0, 3.0, [10.0, 12.0], tmp_path, nll=1.2),
        complete(3, 1.0, 2.0, [9.0, 13.0], tmp_path, nll=1.1),
        complete(4, 4.0, 3.0, [30.0, 31.0], tmp_path),
        trial(5, FAILED, {"temperature": 4.0, "lambda_cls": 4.0}, {1000: "b", 1001: "c"}, {}),
        trial(6, RUNNING, {"temperature": 1.0, "lambda_cls": 4.0}, {1000: "d", 1001: "e"}, {}),
    ]


def by_place(points) -> dict:
    return {tuple(one.point.values()): one for one in points}


def test_every_point_of_the_grid_is_there_with_its_mean_and_std_or_why_it_has_none(trials, tmp_path):
    points = by_place(grid_points(SPACE, trials, tmp_path, RECIPE))
    assert set(points) == {(t, w) for t in (1, 4) for w in (1, 2, 3, 4)}
    states = {place: one.state for place, one in points.items() if one.state != COMPLETE}
    assert states == {(1, 1): NOT_RUN, (4, 2): NOT_RUN, (4, 4): FAILED, (1, 4): NOT_ENDED}
    assert points[1, 2].mean == pytest.approx({"error": 11.0, "nll": 1.1, "ece": 1.1})
    assert points[1, 2].std == pytest.approx({"error": 8**0.5, "nll": 0.0, "ece": 0.08**0.5})
    assert points[4, 3].mean["error"] == 30.5  # the trial that succeeded, not the one that failed before it
    assert [place for place, one in points.items() if one.is_recipe] == [(4, 1)]
    row = points[1, 2].row()
    assert (row["error_mean"], row["seeds"], row["state"], row["recipe"]) == (11.0, 2, COMPLETE, False)
    assert points[4, 4].row()["error_mean"] is None


def test_of_run_folders_on_another_machine_the_mean_is_known_and_the_std_is_not(trials, tmp_path):
    points = by_place(grid_points(SPACE, trials, tmp_path / "elsewhere", RECIPE))
    assert points[1, 2].mean["error"] == 11.0
    assert points[1, 2].std == {}


def message(axes) -> dict[tuple[float, float], str]:
    """The texts of the cells by (temperature, lambda_cls)."""
    temperatures, weights = ([float(label.get_text()) for label in labels] for labels in _labels(axes))
    return {
        (temperatures[round(text.get_position()[1])], weights[round(text.get_position()[0])]): text.get_text()
        for text in axes.texts
    }


def _labels(axes):
    return axes.get_yticklabels(), axes.get_xticklabels()


def marked(axes, color: str) -> list[tuple[float, float]]:
    places = [one.get_offsets()[0] for one in axes.collections if to_hex(one.get_facecolor()[0]) == color]
    return [(round(float(y)), round(float(x))) for x, y in places]  # row, column


def test_cells_show_mean_and_std_and_the_lowest_and_the_recipes_setting_are_marked(trials, tmp_path):
    error, ece, *_ = heat_map("t", SPACE, grid_points(SPACE, trials, tmp_path, RECIPE)).axes
    assert message(error) == {
        (1, 1): "not run", (1, 2): "11.0\n± 2.8", (1, 3): "11.0\n± 1.4", (1, 4): "not ended",
        (4, 1): "21.5\n± 2.1", (4, 2): "not run", (4, 3): "30.5\n± 0.7", (4, 4): "failed",
    }  # fmt: skip
    assert message(ece)[4, 1] == "2.1\n± 0.2"
    assert (error.get_ylabel(), error.get_xlabel()) == ("temperature", "lambda_cls")
    assert (error.get_title(), ece.get_title()) == ("validation error (%)", "validation ECE (%)")
    for axes in (error, ece):
        assert marked(axes, VERMILION) == [(0, 1)]  # T 1, lambda 2
        assert marked(axes, INK) == [(1, 0)]  # T 4, lambda 1
        hatched = {
            (round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)) for patch in axes.patches if patch.get_hatch()
        }
        assert hatched == {(0, 0), (0, 3), (1, 1), (1, 3)}
        means = axes.images[0].get_array()
        assert means.mask.tolist() == [[True, False, False, True], [False, True, False, True]]


def test_one_seed_has_no_std_and_equal_values_are_drawn(tmp_path):
    points = grid_points(SPACE, [complete(0, 4.0, 1.0, [20.0], tmp_path)], tmp_path, RECIPE)
    error, *_ = heat_map("t", SPACE, points).axes
    assert message(error)[4, 1] == "20.0"


def test_the_same_study_gives_the_same_bytes(trials, tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(heat_map("t", SPACE, grid_points(SPACE, trials, tmp_path, RECIPE)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def luminance(color) -> float:
    """Of sRGB, as WCAG 2.1 defines it, channel by channel."""
    total = 0.0
    for channel, weight in zip(color, (0.2126, 0.7152, 0.0722), strict=True):
        total += weight * (channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4)
    return total


def test_numbers_can_be_read_on_every_colour_of_the_map_and_it_darkens_steadily():
    colors = [COLORS(step)[:3] for step in np.linspace(0, 1, 256)]
    for color in colors:
        text = 0.0 if readable_on(color) == "black" else 1.0
        low, high = sorted((text, luminance(color)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
    assert np.all(np.diff([luminance(color) for color in colors]) < 0)


def test_only_finite_grids_of_two_are_planes():
    assert is_plane(SPACE)
    assert not is_plane(load_space("cs-kd"))
    assert not is_plane(load_space("max-entropy", "pereyra"))
