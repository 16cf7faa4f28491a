"""The drawing functions of the paper's figures: what is drawn is what was given, in the same bytes each time."""

import io
import math

import matplotlib
import numpy as np
import pytest
from PIL import Image

from analysis.figures.calibration import calibration_figure
from analysis.figures.curves import learning_curves
from analysis.figures.effects import Effect, forest_plot
from analysis.figures.embedding import choose_images, embed, embedding_figure
from analysis.figures.log_probability import log_probability_figure
from analysis.figures.reliability_pairs import reliability_pairs
from analysis.figures.softmax_bars import choose_misclassified, softmax_bars
from analysis.figures.text import class_name, plain
from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT
from cskd.evaluate.scores import ReliabilityBins, reliability_bins
from cskd.plots import METHOD_STYLES, method_color, method_marker, save_figure

HOSTILE = ("$\\frac{1}$", "<img onerror=alert(1)>", "_hidden", "a$b", "e\\$f_g", "n02-x")
CLASSES = ("apple", "aquarium_fish", *HOSTILE)


def texts(figure):
    """Every text that is drawn, as it is drawn."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return file.getvalue()


def probabilities(rows, seed=0):
    values = np.random.default_rng(seed).random((rows, len(CLASSES)))
    return values / values.sum(axis=1, keepdims=True)


def bars(rows=2, images=None):
    both = {"cross-entropy": probabilities(rows), "cs-kd": probabilities(rows, seed=1)}
    return softmax_bars("a title", both, np.arange(rows), CLASSES, images)


def logits_and_labels(samples=400, classes=10, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    logits = random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += 1.5
    return 3 * logits, labels


def bins(seed=0):
    return reliability_bins(*logits_and_labels(seed=seed), 10)


def histograms():
    random = np.random.default_rng(0)
    predicted = {"cross-entropy": -random.random(50), "cs-kd": -2 * random.random(30)}
    return predicted, {method: 3 * values - 0.5 for method, values in predicted.items()}


def embedded():
    places = np.random.default_rng(0).normal(size=(40, 2))
    labels = np.arange(40) % 4
    return embedding_figure(
        "t-SNE\ntwo lines", {"cross-entropy": places, "cs-kd": -places}, labels, CLASSES, {"cs-kd": 0.625}
    )


EFFECTS = [Effect("a", -2, -3, -1, "holds"), Effect("b$x$", 1, math.nan, math.nan, "open")]
FIGURES = {
    "softmax bars": lambda: bars(images=[np.zeros((4, 4, 3), np.uint8)] * 2),
    "log-probability": lambda: log_probability_figure("a title", *histograms()),
    "embedding": embedded,
    "reliability pairs": lambda: reliability_pairs("a title", "cs-kd", {"cs-kd": (bins(), 0.1), "kd": (bins(1), 0.2)}),
    "curves": lambda: learning_curves("a title", {"error": {"kd": np.eye(3), "cs-kd": np.ones((1, 3))}}, [1]),
    "calibration": lambda: calibration_figure("a title", {"kd": {RAW: np.ones(2)}}, {"kd": {RAW: (0.5, 2)}}),
    "effects": lambda: forest_plot("a title", "points", EFFECTS, ("holds", "open")),
}


@pytest.mark.parametrize("ending", ["png", "pdf"])
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_arrays_give_the_same_bytes(tmp_path, name, ending):
    content = []
    for time in ("first", "second"):
        path = tmp_path / f"{time}.{ending}"
        save_figure(FIGURES[name](), path)
        content.append(path.read_bytes())
    assert content[0] == content[1]


def overlap(one, other):
    return min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(one.y0, other.y0)


@pytest.mark.parametrize("name", FIGURES)
def test_titles_stand_free_and_nothing_leaves_the_page(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    page = figure.bbox
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    titles += [figure._suptitle] if figure._suptitle else []
    boxes = [title.get_window_extent() for title in titles]
    labels = [label for axes in figure.axes if axes.axison for label in axes.get_yticklabels()]
    edge = 3  # pixels, of 100 an inch: letters are measured with the space around them
    for drawn in [*titles, *labels, *figure.legends]:
        box = drawn.get_window_extent()
        assert box.x0 > page.x0 - edge and box.y0 > page.y0 - edge, drawn
        assert box.x1 < page.x1 + edge and box.y1 < page.y1 + edge, drawn
    assert not any(overlap(one, other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_softmax_bars_are_the_five_highest_probabilities_and_a_missing_true_class():
    given = np.array([[0.02, 0.3, 0.1, 0.15, 0.2, 0.08, 0.05, 0.1], [0.4, 0.3, 0.1, 0.15, 0.02, 0.01, 0.01, 0.01]])
    figure = softmax_bars("a title", {"cs-kd": given}, np.array([0, 1]), CLASSES)
    absent, present = figure.axes
    assert [bar.get_width() for bar in absent.patches] == [0.3, 0.2, 0.15, 0.1, 0.1, 0.02]  # equal ones by class
    assert [label.get_text() for label in absent.get_yticklabels()][-1] == "apple"
    assert [bar.get_width() for bar in present.patches] == [0.4, 0.3, 0.15, 0.1, 0.02]
    for axes, true in ((absent, 5), (present, 1)):
        bold = [label.get_fontweight() == "bold" for label in axes.get_yticklabels()]
        solid = [bar.get_facecolor()[3] == 1 for bar in axes.patches]
        assert bold == solid == [place == true for place in range(len(bold))]
    assert [text.get_text() for text in present.texts] == ["40.0 %", "30.0 %", "15.0 %", "10.0 %", "2.0 %"]


def test_images_are_drawn_unflipped_and_in_rgb():
    images = [np.arange(36, dtype=np.uint8).reshape(3, 4, 3), np.full((5, 5, 3), (255, 0, 1), np.uint8)]
    figure = bars(images=images)
    for axes, image in zip(figure.axes[::3], images, strict=True):
        [drawn] = axes.images
        assert np.array_equal(drawn.get_array(), image)
        assert drawn.origin == "upper" and axes.get_ylim()[0] > axes.get_ylim()[1]
        assert axes.get_xlim()[0] < axes.get_xlim()[1]


def test_drawn_pixels_have_the_place_and_the_colour_of_the_image(tmp_path):
    """A red pixel on the upper left of a blue image, found in the rendered page."""
    image = np.full((2, 2, 3), (0, 0, 255), np.uint8)
    image[0, 0] = (255, 0, 0)
    figure = softmax_bars("a title", {"cs-kd": probabilities(1)}, np.array([0]), CLASSES, [image])
    save_figure(figure, tmp_path / "drawn.png")
    page = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    red = np.argwhere((page == (255, 0, 0)).all(axis=2)).mean(axis=0)
    blue = np.argwhere((page == (0, 0, 255)).all(axis=2)).mean(axis=0)
    assert (red < blue).all()


def test_misclassified_images_are_drawn_from_all_and_only_those():
    logits, labels = logits_and_labels()
    wrong = set(np.flatnonzero(logits.argmax(1) != labels).tolist())
    chosen = choose_misclassified(logits, labels)
    assert len(chosen) == 4 and set(chosen.tolist()) <= wrong and (np.diff(chosen) > 0).all()
    assert chosen.tolist() == choose_misclassified(logits, labels).tolist()
    assert set(chosen.tolist()) != set(sorted(wrong)[:4])
    assert choose_misclassified(np.eye(3), np.array([0, 1, 0])).tolist() == [2]
    assert choose_misclassified(np.eye(3), np.arange(3)).tolist() == []
    with pytest.raises(ValueError, match="no misclassified image"):
        softmax_bars("a title", {"cs-kd": np.empty((0, 3))}, np.empty(0, int), CLASSES)


def test_class_names_are_drawn_letter_by_letter():
    figure = softmax_bars("$t$", {"cs-kd": np.full((1, 6), 1 / 6)}, np.array([0]), HOSTILE)
    drawn = texts(figure)
    for name in ("$\\frac{1}$", "&lt;img onerror=alert(1)&gt;", ">hidden<", ">a$b<", ">e\\$f g<", ">$t$<"):
        assert name in drawn
    assert plain("$") == "\\$"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("aquarium_fish", "aquarium fish"),
        ("cub200/Black_footed_Albatross", "Black footed Albatross"),
        ("goldfish, Carassius auratus", "goldfish"),
        ("</script>", "</script>"),
        ("_", "_"),
        ("a" * 40, "a" * 23 + "…"),
    ],
)
def test_class_names_are_read_as_they_are_spoken(name, read):
    assert class_name(name) == read


def test_histograms_have_area_one_and_every_value_and_the_medians():
    predicted, true = histograms()
    figure = log_probability_figure("a title", predicted, true)
    for axes, values in zip(figure.axes, (predicted, true), strict=True):
        outlines = axes.patches[1::2]
        for outline, each, median in zip(outlines, values.values(), axes.collections, strict=True):
            density, edges, _ = outline.get_data()
            assert (density * np.diff(edges)).sum() == pytest.approx(1)
            for low, high, drawn in zip(edges[:-1], edges[1:], density, strict=True):
                inside = np.mean((each >= low) & ((each < high) | ((each == 0) & (high == 0))))
                assert drawn * (high - low) == pytest.approx(inside)
            assert median.get_segments()[0][0, 0] == pytest.approx(np.median(each))
        message = [text.get_text() for text in axes.get_legend().get_texts()]
        assert message == [
            f"{method}: median \N{MINUS SIGN}{-np.median(each):.2f}, n = {len(each)}" for method, each in values.items()
        ]


def test_histograms_differ_in_grey_print():
    left, _ = log_probability_figure("a title", *histograms()).axes
    fills, outlines = left.patches[::2], left.patches[1::2]
    assert len({fill.get_hatch() for fill in fills}) == len({line.get_linestyle() for line in outlines}) == 2


def test_one_certain_answer_has_a_histogram_and_none_has_not(tmp_path):
    save_figure(log_probability_figure("t", {"kd": np.zeros(1)}, {"kd": np.full(1, -50.0)}), tmp_path / "one.png")
    with pytest.raises(ValueError, match="kd misclassifies no image"):
        log_probability_figure("t", {"kd": np.empty(0)}, {"kd": np.empty(0)})


def test_points_stand_where_they_are_given_in_the_style_of_their_class():
    figure = embedded()
    places = np.random.default_rng(0).normal(size=(40, 2))
    for axes, sign in zip(figure.axes, (1, -1), strict=True):
        assert len(axes.collections) == 4
        for label, points in enumerate(axes.collections):
            assert np.array_equal(points.get_offsets(), sign * places[np.arange(40) % 4 == label])
    assert [axes.get_title() for axes in figure.axes] == ["cross-entropy", "cs-kd\nfeature spread 0.62"]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [class_name(name) for name in CLASSES[:4]]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_titles_of_embeddings_stand_free_whatever_the_number_of_panels(number):
    methods = list(METHOD_STYLES)[:number]
    points = dict.fromkeys(methods, np.random.default_rng(0).normal(size=(40, 2)))
    names = [f"class {label}" for label in range(20)]
    figure = embedding_figure("one\ntwo", points, np.arange(40) % 20, names, dict.fromkeys(methods, 0.5))
    figure.draw_without_rendering()
    below = [axes.title.get_window_extent().y1 for axes in figure.axes]
    assert max(below) < figure._suptitle.get_window_extent().y0
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 < min(axes.get_window_extent().y0 for axes in figure.axes)


def test_twenty_classes_have_styles_of_their_own():
    labels = np.arange(20)
    figure = embedding_figure("t", {"kd": np.zeros((20, 2))}, labels, [f"c{label}" for label in labels])
    drawn = figure.axes[0].collections
    styles = {(tuple(each.get_facecolor()[0]), each.get_paths()[0].vertices.tobytes()) for each in drawn}
    assert len(styles) == 20


def test_embedded_images_are_chosen_from_the_labels_alone_and_alike_from_each_class():
    labels = np.arange(10_000) % 100
    rows = choose_images(labels)
    classes, counts = np.unique(labels[rows], return_counts=True)
    assert (len(rows), len(classes), set(counts.tolist())) == (1000, 20, {50})
    assert len(set(rows.tolist())) == 1000 and rows.tolist() == choose_images(labels.copy()).tolist()
    assert choose_images(np.zeros(7, int)).tolist() == list(range(7))


def test_an_embedding_is_repeatable_and_keeps_far_groups_apart():
    random = np.random.default_rng(0)
    features = random.normal(size=(30, 5)) + 100 * (np.arange(30) % 2)[:, None]
    places = embed(features)
    assert places.shape == (30, 2) and np.array_equal(places, embed(features))
    nearest = np.linalg.norm(places[:, None] - places, axis=2) + np.diag([np.inf] * 30)
    assert (nearest.argmin(axis=1) % 2 == np.arange(30) % 2).all()


@pytest.mark.parametrize("features", [np.ones((9, 3)), np.zeros((3, 3)), np.arange(9.0)[:, None]])
def test_features_without_two_dimensions_are_refused(features):
    with pytest.raises(ValueError, match="features"):
        embed(features)


def test_reliability_pairs_show_both_methods_bins_counts_and_ece():
    edges = np.linspace(0, 1, 11)
    count = np.array([0, 12, 3, 0, 20, 0, 0, 0, 0, 15])
    means = np.where(count > 0, 0.1, np.nan)
    ours = ReliabilityBins(edges[:-1], edges[1:], count, means + edges[:-1], means + 0.3)
    figure = reliability_pairs("a title", "cs-kd", {"cs-kd": (ours, 0.125), "kd": (bins(), 0.2)})
    axes, counts = figure.axes
    diagonal, other, other_few, line, few = axes.lines
    assert diagonal.get_linestyle() == "--" and diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    enough = [1, 4, 9]
    assert line.get_xydata() == pytest.approx(np.stack([ours.confidence[enough], ours.accuracy[enough]], axis=1))
    assert few.get_xydata().tolist() == [[ours.confidence[2], ours.accuracy[2]]] and few.get_linestyle() == "None"
    joined = np.concatenate([other.get_xydata(), other_few.get_xydata()])
    filled = bins().count > 0
    assert sorted(joined[:, 1]) == pytest.approx(sorted(bins().accuracy[filled]))
    theirs, own = counts.containers
    assert [bar.get_height() for bar in own] == pytest.approx(100 * count / 50)
    assert [bar.get_height() for bar in theirs] == pytest.approx(100 * bins().count / 400)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kd: ECE 20.0 %", "cs-kd: ECE 12.5 %"]
    assert other.get_color() == method_color("kd") and line.get_color() == method_color("cs-kd")
    assert other.get_marker() != line.get_marker()


def test_every_method_has_a_panel_beside_ours_in_rows_of_four():
    others = [method for method in METHOD_STYLES if method != "cs-kd"]
    figure = reliability_pairs("a title", "cs-kd", {method: (bins(), 0.1) for method in METHOD_STYLES})
    squares = figure.axes[::2]
    assert [axes.get_title() for axes in squares] == others
    assert len({round(axes.get_position().x0, 6) for axes in squares}) == 4
    assert len({round(axes.get_position().y0, 6) for axes in squares}) == 3
    with pytest.raises(ValueError, match="beside cs-kd"):
        reliability_pairs("a title", "cs-kd", {"cs-kd": (bins(), 0.1)})


def test_methods_differ_in_marker_where_they_share_a_colour():
    assert len({marker for _, marker in METHOD_STYLES.values()}) == len(METHOD_STYLES)
    assert method_marker("my own") == method_marker("my own")


def test_curves_are_means_with_bands_in_one_legend():
    values = np.array([[4.0, 2.0], [6.0, 4.0], [5.0, 3.0]])
    curves = {"error": {"cs-kd": values, "kd": values[:1]}, "loss": {"cs-kd": values / 10, "kd": values[:1]}}
    figure = learning_curves("a title", curves, [1])
    error, loss = figure.axes
    drop, *seeds, mean, single = error.lines
    assert drop.get_xdata() == [0.5, 0.5]
    assert len(seeds) == 3 and mean.get_ydata() == pytest.approx([5, 3]) and single.get_ydata() == pytest.approx([4, 2])
    [band] = error.collections
    assert (band.get_datalim(error.transData).y0, band.get_datalim(error.transData).y1) == pytest.approx((2, 6))
    assert loss.lines[4].get_ydata() == pytest.approx([0.5, 0.3])
    assert mean.get_color() == method_color("cs-kd") and mean.get_marker() == method_marker("cs-kd")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cs-kd (n = 3)", "kd (n = 1)"]
    with pytest.raises(ValueError, match="error of kd"):
        learning_curves("a title", {"error": {"kd": np.ones(3)}})


def test_calibration_dots_stand_at_the_means_with_their_seeds_and_intervals():
    ece = {
        "cs-kd": {RAW: np.array([4.0, 6.0]), TRAINING_SPLIT: np.array([3.0]), CROSS_FITTED: np.array([1.0, 2.0])},
        "kd": {RAW: np.array([7.0])},
    }
    figure = calibration_figure("a title", ece, {"kd": {RAW: (6.5, 8.0)}})
    axes = figure.axes[0]
    dots = {
        (line.get_marker(), round(float(line.get_ydata()[0]))): line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() in ("o", "^", "s")
    }
    assert dots == {("o", 0): 5, ("^", 0): 3, ("s", 0): 1.5, ("o", 1): 7}
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "."] == [[4, 6], [1, 2]]
    assert [6.5, 8.0] in [list(line.get_xdata()) for line in axes.lines]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cs-kd (n = 2)", "kd (n = 1)"]
    assert figure.legends[0].get_texts()[-1].get_text() == "95 % interval"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first method on top


def test_a_forest_plot_tells_outcomes_by_colour_and_marker():
    figure = forest_plot("a title", "points", EFFECTS, ("holds", "fails", "open"))
    axes = figure.axes[0]
    zero, interval, dot, none, other = axes.lines
    assert zero.get_xdata() == [0, 0]
    assert list(interval.get_xdata()) == [-3, -1] and list(dot.get_xdata()) == [-2] and list(other.get_xdata()) == [1]
    assert np.isnan(none.get_xdata()).all()
    assert dot.get_color() != other.get_color() and dot.get_marker() != other.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["holds", "open"]
    assert ">b$x$<" in texts(figure)
    same = forest_plot("another", "points", EFFECTS[1:], ("holds", "fails", "open")).axes[0].lines[2]
    assert (same.get_color(), same.get_marker()) == (other.get_color(), other.get_marker())
    with pytest.raises(ValueError, match="outcomes open are not among holds"):
        forest_plot("a title", "points", EFFECTS, ("holds",))
    with pytest.raises(ValueError, match="no effect"):
        forest_plot("a title", "points", [], ("holds",))


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_long_titles_of_reliability_pairs_stay_on_the_page_and_stand_free(panels):
    others = dict.fromkeys(list(METHOD_STYLES)[:panels], (bins(), 0.1)) | {"cs-kd": (bins(), 0.1)}
    title = "tinyimagenet, densenet121 (mini-tuned-custom-6a6759), 10 seeds pooled"
    figure = reliability_pairs(title, "cs-kd", others)
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert figure._suptitle.get_text().split() == title.split()
    assert box.x0 > figure.bbox.x0 and box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1
    assert max(axes.title.get_window_extent().y1 for axes in figure.axes) < box.y0
