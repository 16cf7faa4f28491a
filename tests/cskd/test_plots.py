"""The figures: what they show, and that equal arrays give equal bytes."""

import itertools

import numpy as np
import pytest
from arrays import random_predictions

from cskd.evaluate.scores import expected_calibration_error, reliability_bins
from cskd.plots import METHOD_STYLES, curves_figure, method_style, reliability_figure, reliability_panels
from cskd.utils.numbers import MEAN_STD

# Methods in one table of the paper or in one grid, and so in one figure.
TOGETHER = (
    "cross-entropy adacos virtual-softmax max-entropy label-smoothing cs-kd cs-kd-e",
    "cross-entropy ddgsd byot cs-kd",
    "cross-entropy cs-kd mixup mixup+cs-kd",
    "cross-entropy cs-kd kd kd+cs-kd",
    "cross-entropy cs-kd same-image permuted-partner class-mean pair-halves partner-pass",
)


def test_reliability_diagram_shows_the_bins():
    logits, labels = random_predictions(0)
    axes, counts = reliability_figure(logits, labels, "a run").axes
    bins = reliability_bins(logits, labels, 10)
    filled = bins.count > 0
    accuracy, gap, count = axes.containers[0], axes.containers[1], counts.containers[0]
    assert [bar.get_height() for bar in accuracy] == pytest.approx(bins.accuracy[filled])
    assert [bar.get_height() for bar in count] == pytest.approx(bins.count[filled])
    assert [bar.get_height() for bar in gap] == pytest.approx(abs(bins.gap[filled]))
    assert [bar.get_y() for bar in gap] == pytest.approx(np.minimum(bins.accuracy, bins.confidence)[filled])
    assert axes.texts[0].get_text() == f"ECE {100 * expected_calibration_error(logits, labels):.1f} %"


def test_reliability_panels_are_square_and_have_their_methods_colours():
    bins = reliability_bins(*random_predictions(0), 10)
    squares = reliability_panels("a dataset", {"cross-entropy": (bins, 0.2), "cs-kd": (bins, 0.1)}).axes[::2]
    assert [axes.get_title() for axes in squares] == ["cross-entropy", "cs-kd"]
    assert squares[0].containers[0][0].get_facecolor() != squares[1].containers[0][0].get_facecolor()
    box = squares[0].get_window_extent()
    assert box.width == pytest.approx(box.height)


def test_methods_in_one_figure_differ_in_colour_and_all_methods_in_marker():
    for table in TOGETHER:
        for first, second in itertools.combinations(table.split(), 2):
            assert method_style(first).color != method_style(second).color, (first, second)
    assert set(" ".join(TOGETHER).split()) == set(METHOD_STYLES)
    markers = [style.marker for style in METHOD_STYLES.values()]
    assert len(set(markers)) == len(markers)
    for style in METHOD_STYLES.values():
        assert not set(method_style("my-method")) & set(style)


def test_curves_are_means_with_bands():
    values = np.array([[4.0, 2.0], [6.0, 4.0], [5.0, 3.0]])
    figure = curves_figure("a title", {"error": {"cs-kd": values, "kd": values[:1]}}, [1])
    (error,) = figure.axes
    drop, *seeds, mean, single = error.lines
    assert drop.get_xdata() == [0.5, 0.5]
    assert (len(seeds), len(error.collections)) == (3, 1)  # a single seed has no band
    assert mean.get_ydata() == pytest.approx([5, 3])
    assert single.get_ydata() == pytest.approx([4, 2])
    band = error.collections[0].get_datalim(error.transData)
    assert (band.y0, band.y1) == pytest.approx((2, 6))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cs-kd (n = 3)", "kd (n = 1)"]
    assert MEAN_STD in figure.get_suptitle()
