"""Search spaces: the files, errors in one line, and grids."""

import pytest
import yaml

from cskd.methods import build_method
from cskd.utils.errors import UserError
from experiments.config.grid import grid_names, load_grid
from experiments.config.settings import SCHEDULE_PARAMETERS
from experiments.tuning import space as module
from experiments.tuning.space import EQUAL, SPACES, Space, load_space


def make_space(text: str) -> Space:
    return Space.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_space_file_loads(path):
    for name in yaml.safe_load(path.read_text()):
        load_space(path.stem, name)


def test_every_method_of_the_paper_has_an_equal_space_with_its_parameters_and_the_schedules():
    grids = [grid for grid in grid_names() if grid.startswith(("table", "figure"))]
    for method in {method for grid in grids for method in load_grid(grid, methods=["all"]).methods}:
        searched = load_space(method, EQUAL).parameters
        assert set(searched) == {*build_method(method).parameters(), *SCHEDULE_PARAMETERS}


def test_edges_of_ranges_and_of_three_choices_or_more():
    axes = make_space(
        "parameters: {a: {low: 1, high: 100, log: true}, b: {low: 0, high: 10}, c: {choices: [1, 2, 4]},"
        " d: {choices: [1, 4]}}"
    ).parameters
    for name, edges, inside in (("a", (1, 1.05, 100), (1.2, 80)), ("b", (0.1, 9.9), (0.3, 9)), ("c", (1, 4), (2,))):
        assert [axes[name].is_edge(value) for value in (*edges, *inside)] == [True] * len(edges) + [False] * len(inside)
    assert not axes["d"].is_edge(1)  # every value is an end


def test_regular_grid_is_evenly_spaced_on_the_axis_scale():
    space = make_space("parameters: {a: {low: 1, high: 16, log: true}, b: {low: 0, high: 4}, c: {choices: [1, 2]}}")
    points = space.grid(5 * 5 * 2)
    assert sorted({point["a"] for point in points}) == pytest.approx([1, 2, 4, 8, 16])
    assert sorted({point["b"] for point in points}) == [0, 1, 2, 3, 4]
    assert len({tuple(point.values()) for point in points}) == len(points) == 50
    assert all(point in space for point in points)
    assert space.grid(2) == [{"a": 4.0, "b": 2.0, "c": 1.0}, {"a": 4.0, "b": 2.0, "c": 2.0}]
    with pytest.raises(UserError, match=r"TRIALS=7 is not a regular grid over 2 ranges: give 8, 18"):
        space.grid(7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {temperature: {low: 20, high: 1}}", "low 20 must be below high 1"),
        ("parameters: {temperature: {low: 0, high: 1, log: true}}", "low 0 must be positive on a log scale"),
        ("parameters: {temperature: {low: 1}}", "give low and high, or choices"),
        ("parameters: {temperature: {low: 1, choices: [2]}}", "either choices, or low and high"),
        ("parameters: {temperature: {choices: [2, 2]}}", "each choice once"),
        ("parameters: {temperature: {lo: 1, high: 2}}", "unknown key 'parameters.temperature.lo'"),
        ("parameters: {}", "names no hyper-parameter"),
        ("parameters: {tau: {low: 1, high: 2}}", "has no hyper-parameter 'tau': choose from temperature, lambda_cls"),
        ("parameters: {temperature: {low: -1, high: 2}}", "temperature must be positive, not -1"),
        ("{parameters: {temperature: {low: 1, high: 2}}, start: [{temperature: 4}]}", "outside the space"),
        ("{parameters: {temperature: {low: 1, high: 2}}, start: [{lambda_cls: 4}]}", "must give temperature"),
    ],
)
def test_bad_space_is_one_line_with_the_file(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SPACES", tmp_path)
    path = tmp_path / "cs-kd.yaml"
    path.write_text(yaml.safe_dump({"mine": yaml.safe_load(text)}))
    with pytest.raises(UserError) as caught:
        load_space("cs-kd", "mine")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
