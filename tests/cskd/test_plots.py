"""The figures: what they show, and that equal arrays give equal bytes."""

import itertools

import numpy as np
import pytest
from arrays import random_predictions
from matplotlib.colors import to_rgb

from cskd.evaluate.scores import expected_calibration_error, reliability_bins
from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.plots import (
    FADED,
    MIN_SAMPLES,
    curves_figure,
    method_style,
    reliability_figure,
    reliability_panels,
)
from cskd.utils.numbers import MEAN_STD


def test_reliability_diagram_shows_the_bins():
    logits, labels = random_predictions(0)
    axes, counts = reliability_figure(logits, labels, "a run").axes
    bins = reliability_bins(logits, labels, 10)
    filled = bins.count > 0
    accuracy, gap, count = (*axes.collections, *counts.collections)
    lower, upper = np.sort([bins.accuracy[filled], bins.confidence[filled]], axis=0)
    for bars, start, end in ((accuracy, 0, bins.accuracy[filled]), (gap, lower, upper), (count, 0, bins.count[filled])):
        heights = np.array([path.vertices[:, 1] for path in bars.get_paths()])
        assert heights.min(axis=1) == pytest.approx(start)
        assert heights.max(axis=1) == pytest.approx(end)
    assert counts.get_ylim()[0] == 0
    assert accuracy.get_facecolor()[:, 3] == pytest.approx(np.where(bins.count[filled] < MIN_SAMPLES, FADED, 1))
    assert axes.get_title() == f"{len(labels)} samples: ECE {100 * expected_calibration_error(logits, labels):.1f} %"


def test_reliability_panels_are_square_and_have_their_methods_colours():
    bins = reliability_bins(*random_predictions(0), 10)
    squares = reliability_panels("a dataset", {"cross-entropy": (bins, 0.2), "cs-kd": (bins, 0.1)}).axes[::2]
    assert [axes.get_title() for axes in squares] == ["cross-entropy: ECE 20.0 %", "cs-kd: ECE 10.0 %"]
    assert (squares[0].collections[0].get_facecolor() != squares[1].collections[0].get_facecolor()).any()
    box = squares[0].get_window_extent()
    assert box.width == pytest.approx(box.height)


def test_every_method_has_its_own_colour_and_marker(monkeypatch):
    monkeypatch.setitem(METHODS, "my-method", METHODS["cs-kd"])
    monkeypatch.setitem(METHODS, "my-other", METHODS["cs-kd"])
    styles = {name: method_style(name) for name in (*METHODS, *PAPER_COMPOSITES)}
    colors = {name: np.array(to_rgb(style.color)) for name, style in styles.items()}
    for first, second in itertools.combinations(styles, 2):
        assert np.abs(colors[first] - colors[second]).sum() > 0.25, (first, second)
        assert styles[first].marker != styles[second].marker, (first, second)
    for color in colors.values():  # visible on the white and on the dark page
        assert color.max() < 1 or color.min() < 0.6
    assert (styles["cross-entropy"].color, styles["cs-kd"].color) == ("#0072b2", "#d55e00")
    assert method_style("mixup+label-smoothing") == method_style("mixup+label-smoothing") != method_style("mixup+byot")


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
