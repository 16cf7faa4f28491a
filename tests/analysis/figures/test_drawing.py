"""The drawing functions: figures show the given arrays, readably and reproducibly."""

import io
import math

import matplotlib
import numpy as np
import pytest
from PIL import Image

from analysis.figures.calibration import calibration_figure
from analysis.figures.effects import Effect, forest_plot
from analysis.figures.embedding import choose_images, embed, embedding_figure
from analysis.figures.log_probability import log_probability_figure
from analysis.figures.overfitting import overfitting_figure
from analysis.figures.reliability_pairs import reliability_pairs
from analysis.figures.softmax_bars import choose_misclassified, softmax_bars
from analysis.figures.text import class_name
from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT
from cskd.evaluate.scores import ReliabilityBins, reliability_bins
from cskd.plots import METHOD_STYLES, curves_figure, method_style, save_figure

HOSTILE = ("$\\frac{1}$", "<img onerror=alert(1)>", "_hidden", "a$b", "e\\$f_g", "n02-x")
CLASSES = ("apple", "aquarium_fish", *HOSTILE)
EFFECTS = [Effect("a", -2, -3, -1, "holds"), Effect("b$x$", 1, math.nan, math.nan, "open")]


def svg(figure) -> str:
    """Return the figure as SVG, in which every text is readable."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return file.getvalue()


def probabilities(rows, seed=0):
    values = np.random.default_rng(seed).random((rows, len(CLASSES)))
    return values / values.sum(axis=1, keepdims=True)


def logits_and_labels(samples=400, classes=10, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    logits = random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += 1.5
    return 3 * logits, labels


def bins(seed=0):
    return reliability_bins(*logits_and_labels(seed=seed), 10)


def samples():
    random = np.random.default_rng(0)
    predicted = {"cross-entropy": -random.random(50), "cs-kd": -2 * random.random(30)}
    return predicted, {method: 3 * values - 0.5 for method, values in predicted.items()}


def embedded(panels=2, classes=4):
    points = np.random.default_rng(0).normal(size=(40, 2))
    methods = {method: (-1) ** index * points for index, method in enumerate(list(METHOD_STYLES)[:panels])}
    names = [*CLASSES, *(f"class {label}" for label in range(20))]
    return embedding_figure("t-SNE\ntwo lines", methods, np.arange(40) % classes, names, {"cs-kd": 0.625})


def bars(images=None):
    both = {"cross-entropy": probabilities(2), "cs-kd": probabilities(2, seed=1)}
    return softmax_bars("a title", both, np.arange(2), CLASSES, images)


def pairs(panels=1):
    others = dict.fromkeys(list(METHOD_STYLES)[:panels], (bins(1), 0.2))
    title = "tinyimagenet, densenet121 (mini-tuned-custom-6a6759), 10 seeds pooled"
    return reliability_pairs(title, "cs-kd", {"cs-kd": (bins(), 0.1)} | others)


FIGURES = {
    "softmax bars": lambda: bars([np.zeros((4, 4, 3), np.uint8)] * 2),
    "log-probability": lambda: log_probability_figure("a title", *samples()),
    "embedding": embedded,
    "embedding, one panel": lambda: embedded(1, 20),
    "embedding, four panels": lambda: embedded(4, 20),
    "reliability pairs": pairs,
    "reliability pairs, three panels": lambda: pairs(4),
    "curves": lambda: curves_figure("a title", {"error": {"kd": np.eye(3), "cs-kd": np.ones((1, 3))}}, [1]),
    "calibration": lambda: calibration_figure("a title", {"kd": {RAW: np.ones(2)}}, {"kd": {RAW: (0.5, 2)}}),
    "over-fitting": lambda: overfitting_figure("a title", *np.arange(12).reshape(3, 4)),
    "effects": lambda: forest_plot("a title", "points", EFFECTS, ("holds", "open")),
}


@pytest.mark.parametrize("name", [name for name in FIGURES if "," not in name])
def test_same_arrays_give_identical_files(tmp_path, name):
    for ending in ("png", "pdf"):
        content = []
        for time in ("first", "second"):
            path = tmp_path / f"{time}.{ending}"
            save_figure(FIGURES[name](), path)
            content.append(path.read_bytes())
        assert content[0] == content[1]


def overlap(first, second):
    return min(first.x1, second.x1) > max(first.x0, second.x0) and min(first.y1, second.y1) > max(first.y0, second.y0)


@pytest.mark.parametrize("name", FIGURES)
def test_titles_do_not_overlap_and_nothing_leaves_the_page(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    titles = [axes.title for axes in figure.axes if axes.get_title()] + [figure._suptitle] * bool(figure._suptitle)
    labels = [label for axes in figure.axes if axes.axison for label in axes.get_yticklabels()]
    margin = 3  # pixels: the box of a text includes space around it
    for drawn in [*titles, *labels, *figure.legends]:
        box = drawn.get_window_extent()
        assert min(box.x0 - figure.bbox.x0, box.y0 - figure.bbox.y0) > -margin, drawn
        assert max(box.x1 - figure.bbox.x1, box.y1 - figure.bbox.y1) < margin, drawn
    boxes = [title.get_window_extent() for title in titles]
    assert not any(overlap(box, other) for index, box in enumerate(boxes) for other in boxes[:index])


def test_softmax_bars_show_five_probabilities_and_a_missing_true_class():
    given = np.array([[0.02, 0.3, 0.1, 0.15, 0.2, 0.08, 0.05, 0.1], [0.4, 0.3, 0.1, 0.15, 0.02, 0.01, 0.01, 0.01]])
    absent, present = softmax_bars("a title", {"cs-kd": given}, np.array([0, 1]), CLASSES).axes
    assert [bar.get_width() for bar in absent.patches] == [0.3, 0.2, 0.15, 0.1, 0.1, 0.02]  # ties in class order
    assert [label.get_text() for label in absent.get_yticklabels()][-1] == "apple"
    assert [bar.get_width() for bar in present.patches] == [0.4, 0.3, 0.15, 0.1, 0.02]
    with pytest.raises(ValueError, match="no misclassified image"):
        softmax_bars("a title", {"cs-kd": np.empty((0, 3))}, np.empty(0, int), CLASSES)


def test_softmax_bars_draw_images_upright_in_rgb(tmp_path):
    """A red pixel at the upper left of a blue image is found there in the rendered page."""
    image = np.full((2, 2, 3), (0, 0, 255), np.uint8)
    image[0, 0] = (255, 0, 0)
    figure = softmax_bars("a title", {"cs-kd": probabilities(1)}, np.array([0]), CLASSES, [image])
    save_figure(figure, tmp_path / "drawn.png")
    page = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    red, blue = (np.argwhere((page == color).all(axis=2)).mean(axis=0) for color in ((255, 0, 0), (0, 0, 255)))
    assert (red < blue).all()


def test_misclassified_images_are_drawn_at_random_with_a_fixed_seed():
    logits, labels = logits_and_labels()
    wrong = set(np.flatnonzero(logits.argmax(1) != labels).tolist())
    chosen = choose_misclassified(logits, labels)
    assert len(chosen) == 4 and set(chosen.tolist()) <= wrong and (np.diff(chosen) > 0).all()
    assert chosen.tolist() == choose_misclassified(logits, labels).tolist()
    assert set(chosen.tolist()) != set(sorted(wrong)[:4])
    assert choose_misclassified(np.eye(3), np.array([0, 1, 0])).tolist() == [2]
    assert choose_misclassified(np.eye(3), np.arange(3)).tolist() == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("aquarium_fish", "aquarium fish"),
        ("cub200/Black_footed_Albatross", "Black footed Albatross"),
        ("goldfish, Carassius auratus", "goldfish"),
        ("</script>", "</script>"),
        ("_", "_"),
        ("a" * 40, "a" * 23 + "…"),
    ],
)
def test_class_names_are_readable(name, shown):
    assert class_name(name) == shown


def test_names_with_markup_are_drawn_literally():
    drawn = svg(softmax_bars("$t$", {"cs-kd": np.full((1, 6), 1 / 6)}, np.array([0]), HOSTILE))
    for name in ("$\\frac{1}$", "&lt;img onerror=alert(1)&gt;", ">hidden<", ">a$b<", ">e\\$f g<", ">$t$<"):
        assert name in drawn


def test_histograms_have_area_one_and_medians(tmp_path):
    predicted, true = samples()
    for axes, values in zip(log_probability_figure("t", predicted, true).axes, (predicted, true), strict=True):
        for outline, sample, median in zip(axes.patches[1::2], values.values(), axes.collections, strict=True):
            density, edges, _ = outline.get_data()
            expected, _ = np.histogram(sample, edges)
            assert density * np.diff(edges) == pytest.approx(expected / len(sample))
            assert expected.sum() == len(sample)
            assert median.get_segments()[0][0, 0] == pytest.approx(np.median(sample))
    left, _ = log_probability_figure("a title", predicted, true).axes
    assert len({fill.get_hatch() for fill in left.patches[::2]}) == 2  # for grey print
    save_figure(log_probability_figure("t", {"kd": np.zeros(1)}, {"kd": np.full(1, -50.0)}), tmp_path / "one.png")
    with pytest.raises(ValueError, match="kd misclassifies no image"):
        log_probability_figure("t", {"kd": np.empty(0)}, {"kd": np.empty(0)})


def test_embedding_draws_each_class_at_its_points():
    figure = embedded()
    points = np.random.default_rng(0).normal(size=(40, 2))
    for axes, sign in zip(figure.axes, (1, -1), strict=True):
        for label, drawn in enumerate(axes.collections):
            assert np.array_equal(drawn.get_offsets(), sign * points[np.arange(40) % 4 == label])
    assert [axes.get_title() for axes in figure.axes] == ["cross-entropy", "cs-kd\nfeature spread 0.62"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [class_name(name) for name in CLASSES[:4]]
    drawn = embedded(1, 20).axes[0].collections
    assert len({(tuple(part.get_facecolor()[0]), part.get_paths()[0].vertices.tobytes()) for part in drawn}) == 20


def test_embedded_images_are_balanced_over_classes_and_equal_for_every_method():
    rows = choose_images(np.arange(10_000) % 100)
    classes, counts = np.unique(rows % 100, return_counts=True)
    assert (len(set(rows.tolist())), len(classes), set(counts.tolist())) == (1000, 20, {50})
    assert rows.tolist() == choose_images(np.arange(10_000) % 100).tolist()
    assert choose_images(np.zeros(7, int)).tolist() == list(range(7))


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
    edges = np.linspace(0, 1, 11)
    count = np.array([0, 12, 3, 0, 20, 0, 0, 0, 0, 15])
    means = np.where(count > 0, 0.1, np.nan)
    ours = ReliabilityBins(edges[:-1], edges[1:], count, means + edges[:-1], means + 0.3)
    axes, counts = reliability_pairs("t", "cs-kd", {"cs-kd": (ours, 0.125), "kd": (bins(), 0.2)}).axes
    diagonal, other, other_few, line, few = axes.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    enough = [1, 4, 9]
    assert line.get_xydata() == pytest.approx(np.stack([ours.confidence[enough], ours.accuracy[enough]], axis=1))
    assert few.get_xydata().tolist() == [[ours.confidence[2], ours.accuracy[2]]] and few.get_linestyle() == "None"
    accuracies = np.concatenate([other.get_ydata(), other_few.get_ydata()])
    assert sorted(accuracies) == pytest.approx(sorted(bins().accuracy[bins().count > 0]))
    theirs, own = counts.containers
    assert [bar.get_height() for bar in own] == pytest.approx(100 * count / 50)
    assert [bar.get_height() for bar in theirs] == pytest.approx(100 * bins().count / 400)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kd: ECE 20.0 %", "cs-kd: ECE 12.5 %"]
    assert (other.get_color(), line.get_color()) == (method_style("kd").color, method_style("cs-kd").color)
    assert other.get_marker() != line.get_marker()
    with pytest.raises(ValueError, match="with cs-kd"):
        reliability_pairs("a title", "cs-kd", {"cs-kd": (bins(), 0.1)})


def test_reliability_pairs_have_a_panel_a_method_in_rows_of_four():
    squares = pairs(len(METHOD_STYLES)).axes[::2]
    assert [axes.get_title() for axes in squares] == [method for method in METHOD_STYLES if method != "cs-kd"]
    assert len({round(axes.get_position().x0, 6) for axes in squares}) == 4


def test_calibration_shows_means_seeds_and_intervals():
    ece = {
        "cs-kd": {RAW: np.array([4.0, 6.0]), TRAINING_SPLIT: np.array([3.0]), CROSS_FITTED: np.array([1.0, 2.0])},
        "kd": {RAW: np.array([7.0])},
    }
    figure = calibration_figure("a title", ece, {"kd": {RAW: (6.5, 8.0)}})
    lines = figure.axes[0].lines
    means = {
        (line.get_marker(), round(float(line.get_ydata()[0]))): line.get_xdata()[0]
        for line in lines
        if line.get_marker() in ("o", "^", "s")
    }
    assert means == {("o", 0): 5, ("^", 0): 3, ("s", 0): 1.5, ("o", 1): 7}
    assert [list(line.get_xdata()) for line in lines if line.get_marker() == "."] == [[4, 6], [1, 2]]
    assert [6.5, 8.0] in [list(line.get_xdata()) for line in lines]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cs-kd (n = 2)", "kd (n = 1)"]


def test_forest_plot_marks_outcomes_by_colour_and_marker():
    figure = forest_plot("a title", "points", EFFECTS, ("holds", "fails", "open"))
    zero, interval, dot, none, other = figure.axes[0].lines
    assert zero.get_xdata() == [0, 0]
    assert [list(line.get_xdata()) for line in (interval, dot, other)] == [[-3, -1], [-2], [1]]
    assert np.isnan(none.get_xdata()).all()
    assert dot.get_color() != other.get_color() and dot.get_marker() != other.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["holds", "open"]
    same = forest_plot("another", "points", EFFECTS[1:], ("holds", "fails", "open")).axes[0].lines[2]
    assert (same.get_color(), same.get_marker()) == (other.get_color(), other.get_marker())
    with pytest.raises(ValueError, match="outcomes open are not among holds"):
        forest_plot("a title", "points", EFFECTS, ("holds",))
    with pytest.raises(ValueError, match="no effect"):
        forest_plot("a title", "points", [], ("holds",))
