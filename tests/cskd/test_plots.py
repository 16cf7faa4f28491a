"""The figures: what they show, and that equal arrays give equal bytes."""

import itertools

import numpy as np
import pytest
from arrays import random_predictions

from cskd.evaluate.scores import expected_calibration_error, reliability_bins
from cskd.plots import (
    METHOD_STYLES,
    curves_figure,
    method_style,
    reliability_figure,
    reliability_panels,
    save_figure,
)
from cskd.utils.numbers import MEAN_STD

# Methods in one table of the paper or in one grid, and so in one figure.
TOGETHER = (
    "cross-entropy adacos virtual-softmax max-entropy label-smoothing cs-kd cs-kd-e",
    "cross-entropy ddgsd byot cs-kd",
    "cross-entropy cs-kd mixup mixup+cs-kd",
    "cross-entropy cs-kd kd kd+cs-kd",
    "cross-entropy cs-kd same-image permuted-partner class-mean pair-halves partner-pass",
)


def heights(axes):
    return [bar.get_height() for bar in axes.containers[0]]


def test_reliability_diagram_shows_the_bins():
    logits, labels = random_predictions(0)
    figure = reliability_figure(logits, labels, "a run")
    axes, counts = figure.axes
    bins = reliability_bins(logits, labels, 10)
    filled = bins.count > 0
    assert heights(axes) == pytest.approx(bins.accuracy[filled])
    assert heights(counts) == pytest.approx(bins.count[filled])
    gaps = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.containers[1]]
    assert gaps == [
        pytest.approx(sorted(pair)) for pair in zip(bins.accuracy[filled], bins.confidence[filled], strict=True)
    ]
    [diagonal] = axes.lines
    assert diagonal.get_linestyle() == "--"
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert axes.texts[0].get_text() == f"ECE {100 * expected_calibration_error(logits, labels):.1f} %"


def test_reliability_panels_are_square_and_have_their_methods_colours(tmp_path):
    bins = reliability_bins(*random_predictions(0), 10)
    figure = reliability_panels("a dataset", {"cross-entropy": (bins, 0.2), "cs-kd": (bins, 0.1)})
    squares = figure.axes[::2]
    assert [axes.get_title() for axes in squares] == ["cross-entropy", "cs-kd"]
    colors = [axes.containers[0][0].get_facecolor() for axes in squares]
    assert colors[0] != colors[1]
    save_figure(figure, tmp_path / "panels.png")
    for axes, counts in zip(squares, figure.axes[1::2], strict=True):
        box, below = axes.get_window_extent(), counts.get_window_extent()
        assert box.width == pytest.approx(box.height)
        assert (below.x0, below.width) == pytest.approx((box.x0, box.width))


def test_methods_in_one_figure_differ_in_colour_and_marker():
    for table in TOGETHER:
        for first, second in itertools.combinations(table.split(), 2):
            assert method_style(first).color != method_style(second).color, (first, second)
    assert set(" ".join(TOGETHER).split()) == set(METHOD_STYLES)
    markers = [style.marker for style in METHOD_STYLES.values()]
    assert len(set(markers)) == len(markers)


def test_own_methods_look_like_no_other():
    style = method_style("my-method")
    assert style == method_style("my-method")
    for other in METHOD_STYLES.values():
        assert not set(style) & set(other)


def test_curves_are_means_with_bands():
    values = np.array([[4.0, 2.0], [6.0, 4.0], [5.0, 3.0]])
    curves = {"error": {"cs-kd": values, "kd": values[:1]}, "loss": {"cs-kd": values / 10, "kd": values[:1]}}
    figure = curves_figure("a title", curves, [1])
    error, loss = figure.axes
    drop, *seeds, mean, single = error.lines
    assert drop.get_xdata() == [0.5, 0.5]
    assert len(seeds) == 3 and mean.get_ydata() == pytest.approx([5, 3]) and single.get_ydata() == pytest.approx([4, 2])
    band = error.collections[0].get_datalim(error.transData)
    assert (band.y0, band.y1) == pytest.approx((2, 6))
    assert loss.lines[4].get_ydata() == pytest.approx([0.5, 0.3])
    assert (mean.get_color(), mean.get_marker()) == (method_style("cs-kd").color, method_style("cs-kd").marker)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cs-kd (n = 3)", "kd (n = 1)"]
    assert MEAN_STD in figure.get_suptitle()
    with pytest.raises(ValueError, match="error of kd"):
        curves_figure("a title", {"error": {"kd": np.ones(3)}})


def test_curve_of_one_seed_has_no_band():
    figure = curves_figure("a cell", {"error": {"cs-kd": np.ones((1, 5))}})
    assert not figure.axes[0].collections
    assert MEAN_STD not in figure.get_suptitle()


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_equal_figures_are_equal_bytes_without_date(tmp_path, ending):
    content = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.{ending}"
        save_figure(reliability_figure(*random_predictions(0), "a run"), path)
        content.append(path.read_bytes())
    assert content[0] == content[1]
    for word in (b"Matplotlib", b"matplotlib", b"CreationDate"):
        assert word not in content[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"first.{ending}", f"second.{ending}"]
