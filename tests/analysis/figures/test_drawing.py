"""The drawing functions show the given arrays."""

import io
import math

import matplotlib
import numpy as np
import pytest

from analysis.figures.calibration import calibration_figure
from analysis.figures.effects import OUTCOME_STYLES, Effect, forest_plot
from analysis.figures.embedding import embed, embedding_figure
from analysis.figures.log_probability import log_probability_figure
from analysis.figures.reliability_pairs import reliability_pairs
from analysis.figures.softmax_bars import choose_misclassified, softmax_bars
from analysis.figures.sources import readable
from cskd.evaluate.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT
from cskd.evaluate.scores import ReliabilityBins
from cskd.plots import METHOD_STYLES

CLASSES = tuple(f"class {number}" for number in range(20))


def texts(artists) -> list[str]:
    return [artist.get_text() for artist in artists]


def embedded(panels=2, classes=4):
    points = np.random.default_rng(0).normal(size=(40, 2))
    methods = {method: (-1) ** index * points for index, method in enumerate(list(METHOD_STYLES)[:panels])}
    return embedding_figure("t-SNE\ntwo lines", methods, np.arange(40) % classes, CLASSES, {"cs-kd": 0.625})


def bins(count=(0, 12, 3, 0, 20, 0, 0, 0, 0, 15), shift=0.3):
    edges, count = np.linspace(0, 1, 11), np.array(count)
    means = np.where(count > 0, 0.1, np.nan)
    return ReliabilityBins(edges[:-1], edges[1:], count, means + edges[:-1], means + shift)


def pairs(panels=1):
    others = dict.fromkeys(list(METHOD_STYLES)[:panels], (bins([10] * 10), 0.2))
    title = "tinyimagenet, densenet121 (mini-tuned-custom-6a6759), 10 seeds pooled"
    return reliability_pairs(title, "cs-kd", {"cs-kd": (bins(), 0.125)} | others)


def test_softmax_bars_show_five_probabilities_and_a_missing_true_class():
    given = np.array([[0.02, 0.3, 0.1, 0.15, 0.2, 0.08, 0.05, 0.1], [0.4, 0.3, 0.1, 0.15, 0.02, 0.01, 0.01, 0.01]])
    absent, present = softmax_bars("a title", {"cs-kd": given}, np.array([0, 1]), CLASSES).axes
    assert [bar.get_width() for bar in absent.patches] == [0.3, 0.2, 0.15, 0.1, 0.1, 0.02]  # ties in class order
    assert texts(absent.get_yticklabels())[-1] == "class 0"
    assert [bar.get_width() for bar in present.patches] == [0.4, 0.3, 0.15, 0.1, 0.02]


def test_misclassified_images_are_drawn_at_random_with_a_fixed_seed():
    labels = np.arange(400) % 10
    logits = np.eye(10)[(labels + (np.arange(400) % 4 == 0)) % 10]
    chosen = choose_misclassified(logits, labels)
    assert len(chosen) == 4 and (chosen % 4 == 0).all() and (np.diff(chosen) > 0).all()
    assert chosen.tolist() == choose_misclassified(logits, labels).tolist() != [0, 4, 8, 12]
    assert choose_misclassified(np.eye(3), np.array([0, 1, 0])).tolist() == [2]
    assert choose_misclassified(np.eye(3), np.arange(3)).tolist() == []


def test_class_names_are_readable_and_markup_is_drawn_literally():
    names = {
        "aquarium_fish": "aquarium fish",
        "cub200/Black_footed_Albatross": "Black footed Albatross",
        "goldfish, Carassius auratus": "goldfish",
        "_": "_",
        "a" * 40: "a" * 23 + "…",
    }
    assert {name: readable(name) for name in names} == names
    hostile = ("$\\frac{1}$", "<img onerror=alert(1)>", "a$b")
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        softmax_bars("$t$", {"cs-kd": np.full((1, 3), 1 / 3)}, np.array([0]), hostile).savefig(file, format="svg")
    for name in ("$\\frac{1}$", "&lt;img onerror=alert(1)&gt;", ">a$b<", ">$t$<"):
        assert name in file.getvalue()


def test_histograms_have_area_one_and_medians():
    random = np.random.default_rng(0)
    predicted = {"cross-entropy": -random.random(50), "cs-kd": -2 * random.random(30)}
    true = {method: 3 * values - 0.5 for method, values in predicted.items()}
    for axes, values in zip(log_probability_figure("t", predicted, true).axes, (predicted, true), strict=True):
        for outline, sample, median in zip(axes.patches[1::2], values.values(), axes.collections, strict=True):
            density, edges, _ = outline.get_data()
            expected, _ = np.histogram(sample, edges)
            assert density * np.diff(edges) == pytest.approx(expected / len(sample))
            assert expected.sum() == len(sample)
            assert median.get_segments()[0][0, 0] == pytest.approx(np.median(sample))


def test_embedding_draws_each_class_at_its_points():
    figure, points = embedded(), np.random.default_rng(0).normal(size=(40, 2))
    for axes, sign in zip(figure.axes, (1, -1), strict=True):
        for label, drawn in enumerate(axes.collections):
            assert np.array_equal(drawn.get_offsets(), sign * points[np.arange(40) % 4 == label])
    assert texts(axes.title for axes in figure.axes) == ["cross-entropy", "cs-kd\nfeature spread 0.62"]
    assert texts(figure.legends[0].get_texts()) == list(CLASSES[:4])
    drawn = embedded(1, 20).axes[0].collections
    assert len({(tuple(part.get_facecolor()[0]), part.get_paths()[0].vertices.tobytes()) for part in drawn}) == 20


def test_embedding_is_reproducible_and_separates_distant_groups():
    features = np.random.default_rng(0).normal(size=(30, 5)) + 100 * (np.arange(30) % 2)[:, None]
    points = embed(features)
    assert points.shape == (30, 2) and np.array_equal(points, embed(features))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 30)
    assert (distances.argmin(axis=1) % 2 == np.arange(30) % 2).all()
    for degenerate in (np.ones((9, 3)), np.zeros((3, 3)), np.arange(9.0)[:, None]):
        with pytest.raises(ValueError, match="features"):
            embed(degenerate)


def test_reliability_pairs_show_bins_counts_and_ece_of_both_methods():
    ours, enough = bins(), [1, 4, 9]
    axes, counts = pairs().axes
    diagonal, other, _, line, few = axes.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert other.get_xydata() == pytest.approx(np.stack([np.linspace(0.1, 1, 10), np.full(10, 0.4)], axis=1))
    assert line.get_xydata() == pytest.approx(np.stack([ours.confidence[enough], ours.accuracy[enough]], axis=1))
    assert few.get_xydata().tolist() == [[ours.confidence[2], ours.accuracy[2]]] and few.get_linestyle() == "None"
    theirs, own = counts.containers
    assert [bar.get_height() for bar in own] == pytest.approx(100 * ours.count / 50)
    assert [bar.get_height() for bar in theirs] == pytest.approx([10] * 10)
    assert texts(axes.get_legend().get_texts()) == ["cross-entropy: ECE 20.0 %", "cs-kd: ECE 12.5 %"]


def test_calibration_shows_means_seeds_and_intervals():
    ece = {
        "cs-kd": {RAW: np.array([4.0, 6.0]), TRAINING_SPLIT: np.array([3.0]), CROSS_FITTED: np.array([1.0, 2.0])},
        "kd": {RAW: np.array([7.0])},
    }
    [axes] = calibration_figure("a title", ece, {"kd": (6.5, 8.0)}).axes
    drawn = [(line.get_marker(), round(line.get_ydata()[0]), list(line.get_xdata())) for line in axes.lines]
    means = {(marker, row): values for marker, row, values in drawn if marker in ("o", "^", "s")}
    assert means == {("o", 0): [5], ("^", 0): [3], ("s", 0): [1.5], ("o", 1): [7]}
    assert [values for marker, _, values in drawn if marker == "."] == [[4, 6], [1, 2]]
    assert [6.5, 8.0] in [values for _, _, values in drawn]
    assert texts(axes.get_yticklabels()) == ["cs-kd (n = 2)", "kd (n = 1)"]


def test_forest_plot_marks_outcomes_by_colour_and_marker():
    effects = [Effect("a", -2, -3, -1, "holds"), Effect("b$x$", 1, math.nan, math.nan, "undecided")]
    styles = {name: OUTCOME_STYLES[name] for name in ("holds", "contradicted", "undecided")}
    figure = forest_plot("a title", "points", effects, styles)
    zero, interval, dot, _, none, other = figure.axes[0].lines
    assert list(zero.get_xdata()) == [0, 0]
    assert [list(line.get_xdata()) for line in (interval, dot, other)] == [[-3, -1], [-2], [1]]
    assert np.isnan(none.get_xdata()).all()
    assert dot.get_color() != other.get_color() and dot.get_marker() != other.get_marker()
    assert texts(figure.legends[0].get_texts()) == ["holds", "undecided"]
    same = forest_plot("another", "points", effects[1:], styles).axes[0].lines[2]
    assert (same.get_color(), same.get_marker()) == (other.get_color(), other.get_marker())
