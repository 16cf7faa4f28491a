"""Search spaces: what is understood, what is refused in one line, and the grids over them."""

import math

import pytest
import yaml

from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.utils.errors import UserError
from experiments.config.grid import grid_names, load_grid
from experiments.tuning import space as module
from experiments.tuning.objectives import parse_objectives
from experiments.tuning.space import SPACES, Space, load_space

EVERY = [*METHODS, *PAPER_COMPOSITES]


def make(text: str) -> Space:
    return Space.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_space_is_of_a_method_and_loads(path):
    assert path.stem in EVERY
    for name in yaml.safe_load(path.read_text()):
        space = load_space(path.stem, name)
        assert set(space.parameters) <= set(build_method(path.stem).parameters())


def test_every_method_of_the_papers_tables_with_hyper_parameters_has_a_space():
    of_the_paper = {method for grid in grid_names() for method in load_grid(grid, methods=["all"]).methods}
    having = {name for name in of_the_paper if build_method(name).parameters()}
    assert having <= {path.stem for path in SPACES.glob("*.yaml")}


def test_the_spaces_of_cs_kd_are_the_default_ranges_and_the_papers_grid():
    default, paper = load_space("cs-kd"), load_space("cs-kd", "paper")
    ranges = {name: (axis.low, axis.high, axis.log) for name, axis in default.parameters.items()}
    assert ranges == {"temperature": (1, 20, True), "lambda_cls": (0.1, 10, True)}
    assert {tuple(point.values()) for point in paper.grid()} == {(t, w) for t in (1, 4) for w in (1, 2, 3, 4)}


def test_a_regular_grid_is_equidistant_on_the_axis_own_scale_and_keeps_its_ends():
    space = make("parameters: {a: {low: 1, high: 16, log: true}, b: {low: 0, high: 4}, c: {choices: [1, 2]}}")
    points = space.grid(5 * 5 * 2)
    assert sorted({point["a"] for point in points}) == pytest.approx([1, 2, 4, 8, 16])
    assert sorted({point["b"] for point in points}) == [0, 1, 2, 3, 4]
    assert len({tuple(point.values()) for point in points}) == len(points) == 50
    assert all(map(space.holds, points))
    assert space.grid(2) == [{"a": 4.0, "b": 2.0, "c": 1.0}, {"a": 4.0, "b": 2.0, "c": 2.0}]


@pytest.mark.parametrize("points", [3, 7, 0])
def test_a_number_that_makes_no_regular_grid_is_refused_with_some_that_do(points):
    space = make("parameters: {a: {low: 1, high: 2}, b: {low: 1, high: 2}}")
    with pytest.raises(UserError, match=f"TRIALS={points} do not make a regular grid over 2 ranges: 4, 9"):
        space.grid(points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {temperature: {low: 20, high: 1}}", "low 20 must be below high 1"),
        ("parameters: {temperature: {low: 1, high: 1}}", "low 1 must be below high 1"),
        ("parameters: {temperature: {low: 0, high: 1, log: true}}", "low 0 must be positive on a log scale"),
        ("parameters: {temperature: {low: 1}}", "give low and high, or choices"),
        ("parameters: {temperature: {low: 1, choices: [2]}}", "either choices, or low and high"),
        ("parameters: {temperature: {choices: [2, 2]}}", "each once"),
        ("parameters: {temperature: {lo: 1, high: 2}}", "unknown key 'parameters.temperature.lo'"),
        ("parameters: {}", "names no hyper-parameter"),
        ("parameters: {tau: {low: 1, high: 2}}", "has no hyper-parameter 'tau': it has temperature, lambda_cls"),
        ("parameters: {temperature: {low: -1, high: 2}}", "temperature must be positive, not -1"),
        ("{parameters: {temperature: {low: 1, high: 2}}, start: [{temperature: 4}]}", "outside the space"),
        ("{parameters: {temperature: {low: 1, high: 2}}, start: [{lambda_cls: 4}]}", "must give temperature"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_in_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SPACES", tmp_path)
    path = tmp_path / "cs-kd.yaml"
    path.write_text(yaml.safe_dump({"mine": yaml.safe_load(text)}))
    with pytest.raises(UserError) as caught:
        load_space("cs-kd", "mine")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_without_hyper_parameters_or_without_a_space_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cross-entropy has no hyper-parameters: there is nothing to tune"):
        load_space("cross-entropy")
    with pytest.raises(UserError, match="unknown search space 'wide': choose from default, paper"):
        load_space("cs-kd", "wide")
    monkeypatch.setattr(module, "SPACES", tmp_path)
    with pytest.raises(UserError, match="no search space yet: write"):
        load_space("cs-kd")


def test_objectives_are_one_or_two_of_the_known():
    assert parse_objectives("error") == ("error",)
    assert parse_objectives("error, ece") == ("error", "ece")
    for text, message in (
        ("accuracy", "choose from ece, error, nll"),
        ("ece,ece", "is not understood"),
        ("error,nll,ece", "or two"),
    ):
        with pytest.raises(UserError, match=message):
            parse_objectives(text)


def test_one_point_of_a_log_range_is_its_geometric_middle():
    assert make("parameters: {a: {low: 0.1, high: 10, log: true}}").grid(1)[0]["a"] == pytest.approx(
        math.sqrt(0.1 * 10)
    )
