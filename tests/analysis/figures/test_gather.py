"""The figures of a pool: which are drawn, from which arrays, and the notes on what is missing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from builders import make_pool
from PIL import Image

from analysis.figures import embedding
from analysis.figures.gather import pool_figures
from analysis.figures.sources import prepared_test_split
from analysis.load.store import UnusableRun
from analysis.stats.evaluation import RAW, Evaluation
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import expected_calibration_error, reliability_bins

CLASSES = ("a $x$", "b_c", "<img onerror=alert(1)>")
INDICES = np.array([3, 5, 0, 2])
CELL = "cifar100-resnet18"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A prepared dataset of six test images, each of another colour, beside a damaged one."""
    folder = tmp_path_factory.mktemp("data")
    entries = []
    for number in range(6):
        path = folder / f"{number}.png"
        Image.new("RGB", (4, 4), (40 * number, 0, 255)).save(path)
        entries.append((path, number % 3))
    write_dataset(
        folder / "prepared" / "small", "small", Listing(list(CLASSES), entries, entries), complete=True, source=""
    )
    (folder / "prepared" / "broken").mkdir()
    (folder / "prepared" / "broken" / "dataset.json").write_text("[]")
    return folder


class FakeStore:
    """A store in which all runs have the same predictions and histories of the same length."""

    def __init__(self, predictions, history=True):
        self.predictions, self.history = predictions, history

    def load_predictions(self, run, cache):
        return self.predictions

    def load_history(self, run, names, cache):
        if not self.history:
            raise UnusableRun(f"{run.run} has no history of train/loss")
        return pd.DataFrame({name: [run.seed + 2.0, run.seed + 1.0] for name in names})


@pytest.fixture(autouse=True)
def fast_embedding(monkeypatch):
    """t-SNE takes seconds, and test_drawing.py tests it."""
    monkeypatch.setattr(embedding, "embed", lambda features: features[:, :2])


def predictions(**changes):
    logits = np.array([[9, 0, 1], [0, 1, 9], [0, 9, 8], [1, 0, 9]], dtype=np.float32)  # only the last is right
    features = np.random.RandomState(0).standard_normal((4, 3)).astype(np.float32)
    return dataclasses.replace(Predictions(logits, features, np.array([1, 0, 2, 2]), INDICES, CLASSES), **changes)


def evaluation(run_key, found):
    wrong = np.array([-0.5, -0.25, -1])
    ece = 100 * expected_calibration_error(found.logits, found.labels)
    return Evaluation(
        run_key=run_key,
        metrics={RAW: {"ece": ece}},
        temperatures={},
        replicates={"ece": ece + np.linspace(-1, 1, 20)},
        bins=reliability_bins(found.logits, found.labels, 20),
        predicted_log_probability=wrong,
        true_log_probability=4 * wrong,
        stored={"feature_spread": 0.75},
    )


@pytest.fixture(scope="module")
def pool(data_dir):
    seeds = {0: 20.0, 1: 21.0, 2: 22.0}
    cells = {
        "cifar100/resnet18/cross-entropy": seeds,
        "cifar100/resnet18/cs-kd": seeds,
        "cub200/resnet18/cross-entropy": seeds,
        "cub200/resnet18/cs-kd": {0: "failed"},
        "cifar100/resnet10/cs-kd": seeds,
    }
    made = make_pool(cells)
    digest = open_dataset(data_dir / "prepared" / "small").digest
    settings = {"params.data_digest": digest, "params.schedule.milestones": "[1]"}
    return dataclasses.replace(made, runs=made.runs.assign(**settings))


def draw(pool, found, tmp_path, data_dir):
    evaluations = {key: evaluation(key, found) for key in pool.done.run_key}
    return pool_figures(pool, FakeStore(found), evaluations, tmp_path, data_dir)


@pytest.fixture(scope="module")
def drawn(pool, tmp_path_factory, data_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "embed", lambda features: features[:, :2])
        return draw(pool, predictions(), tmp_path_factory.mktemp("cache"), data_dir)


def test_dataset_with_both_methods_has_every_figure(drawn):
    figures, notes = drawn
    kinds = ("figure1b", "figure2", "figure3", "figure5", "curves", "overfitting", "calibration")
    assert [name for name in figures if name.endswith(CELL)] == [f"{kind}-{CELL}" for kind in kinds]
    assert len([name for name in figures if name.startswith("figure1b")]) == 1  # of one dataset a network
    for note in (
        "figure 3, cifar100, resnet18: virtual-softmax was not run.",
        "figure 5, cifar100, resnet10: not drawn, no method to compare with cs-kd.",
        "figure 1b, cifar100, resnet10: not drawn, cross-entropy was not run.",
        "figure 2, cub200, resnet18: not drawn, cs-kd has no finished run.",
    ):
        assert note in notes


def test_softmax_bars_show_the_images_of_the_predictions(drawn):
    figure = drawn[0][f"figure1b-{CELL}"]
    images = [axes.images[0].get_array() for axes in figure.axes[::3]]
    assert [tuple(image[0, 0]) for image in images] == [(40 * number, 0, 255) for number in INDICES[:3]]
    assert "3 of the 3 test images that cross-entropy misclassifies" in figure.get_suptitle()
    assert "seed 0" in figure.get_suptitle()


def test_seeds_are_pooled_or_averaged(drawn):
    figures, found = drawn[0], predictions()
    legend = [text.get_text() for text in figures[f"figure2-{CELL}"].axes[0].get_legend().get_texts()]
    assert legend == [f"{method}: median \N{MINUS SIGN}0.50, n = 9" for method in ("cross-entropy", "cs-kd")]
    ece = 100 * expected_calibration_error(found.logits, found.labels)
    legend = [text.get_text() for text in figures[f"figure5-{CELL}"].axes[0].get_legend().get_texts()]
    assert legend == [f"{method}: ECE {ece:.1f} %" for method in ("cross-entropy", "cs-kd")]
    drop, *_, mean = figures[f"curves-{CELL}"].axes[0].lines
    assert drop.get_xdata() == [0.5, 0.5] and mean.get_ydata() == pytest.approx([3, 2])
    axes = figures[f"overfitting-{CELL}"].axes[0]
    assert axes.get_lines()[1].get_xdata().tolist() == [0, 0]  # test and training errors are equal here
    assert "feature spread 0.75" in figures[f"figure3-{CELL}"].axes[0].get_title()


def test_without_a_misclassified_image_there_are_no_softmax_bars(pool, tmp_path, data_dir):
    figures, notes = draw(pool, predictions(labels=np.array([0, 2, 1, 2])), tmp_path, data_dir)
    assert f"figure1b-{CELL}" not in figures
    assert "figure 1b, cifar100, resnet18: not drawn, cross-entropy misclassifies no image." in notes


def test_missing_evaluations_histories_and_images_are_noted(pool, tmp_path):
    figures, notes = pool_figures(pool, FakeStore(predictions(), history=False), {}, tmp_path, tmp_path / "no data")
    assert not any(axes.images for axes in figures[f"figure1b-{CELL}"].axes)
    assert "feature spread" not in figures[f"figure3-{CELL}"].axes[0].get_title()
    assert any("without images: the dataset" in note and "is not prepared in DATA_DIR" in note for note in notes)
    for note in (
        "figure 2, cifar100, resnet18: not drawn, cross-entropy is not evaluated.",
        "calibration, cifar100, resnet18: not drawn, no run is evaluated.",
        "curves, cifar100, resnet18: cifar100/resnet18/cs-kd/seed0 has no history of train/loss.",
        "curves, cifar100, resnet18: not drawn, no finished run has a history.",
    ):
        assert note in notes


def test_test_split_is_found_by_digest(data_dir):
    assert prepared_test_split("0" * 64, data_dir) is None
    assert prepared_test_split("0" * 64, data_dir / "nowhere") is None
