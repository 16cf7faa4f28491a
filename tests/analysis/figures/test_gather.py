"""The figures of a pool: which are drawn, from which arrays, and the notes on what is missing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from builders import make_pool
from PIL import Image

from analysis.figures import embedding
from analysis.figures.gather import pool_figures
from analysis.load.store import UnusableRun
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.evaluate.evaluation import RAW, Evaluation
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import expected_calibration_error, reliability_bins

CLASSES = ("a $x$", "b_c", "<img onerror=alert(1)>")
INDICES = np.array([3, 5, 0, 2])
CELL = "cifar100-resnet18"
SEEDS = {0: 20.0, 1: 21.0, 2: 22.0}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A prepared dataset of six test images, each of another colour, beside a damaged one."""
    folder = tmp_path_factory.mktemp("data")
    entries = []
    for number in range(6):
        path = folder / f"{number}.png"
        Image.new("RGB", (4, 4), (40 * number, 0, 255)).save(path)
        entries.append((path, number % 3))
    listing = Listing(list(CLASSES), entries, entries)
    write_dataset(folder / "prepared" / "small", "small", listing, complete=True, source="")
    (folder / "prepared" / "broken").mkdir()
    (folder / "prepared" / "broken" / "dataset.json").write_text("[]")
    return folder


class FakeStore:
    """A store in which all runs have the same predictions and histories of the same length."""

    def __init__(self, labels, history):
        logits = np.array([[9, 0, 1], [0, 1, 9], [0, 9, 8], [1, 0, 9]], dtype=np.float32)  # predicts 0, 2, 1, 2
        features = np.random.RandomState(0).standard_normal((4, 3)).astype(np.float32)
        self.predictions = Predictions(logits, features, np.array(labels), INDICES, CLASSES)
        self.ece = 100 * expected_calibration_error(logits, self.predictions.labels)
        self.history = history

    def load_predictions(self, run, cache):
        return self.predictions

    def load_history(self, run, names, cache):
        if not self.history:
            raise UnusableRun(f"{run.run} has no history of train/loss")
        return pd.DataFrame({name: [run.seed + 2.0, run.seed + 1.0] for name in names})

    def evaluation(self, run_key):
        wrong = np.array([-0.5, -0.25, -1])
        return Evaluation(
            metrics={RAW: {"ece": self.ece}},
            temperatures={},
            replicates={"ece": self.ece + np.linspace(-1, 1, 20)},
            bins=reliability_bins(self.predictions.logits, self.predictions.labels, 20),
            predicted_log_probability=wrong,
            true_log_probability=4 * wrong,
            stored={"feature_spread": 0.75},
        )


@pytest.fixture(scope="module")
def draw(data_dir, tmp_path_factory):
    """Return the figures and notes of a pool: ``draw(cells, labels=..., evaluated=..., data=..., history=...)``."""

    def figures(cells, labels=(1, 0, 2, 2), evaluated=True, data=data_dir, history=True):
        pool = make_pool(cells)
        digest = open_dataset(data_dir / "prepared" / "small").digest
        runs = pool.runs.assign(**{"params.data_digest": digest, "params.schedule.milestones": "[1]"})
        pool = dataclasses.replace(pool, runs=runs)
        store = FakeStore(labels, history)
        evaluations = {key: store.evaluation(key) for key in pool.done.run_key} if evaluated else {}
        with pytest.MonkeyPatch.context() as patch:  # t-SNE takes seconds, and test_drawing.py tests it
            patch.setattr(embedding, "embed", lambda features: features[:, :2])
            drawings, notes = pool_figures(pool, store, evaluations, tmp_path_factory.mktemp("cache"), data)
        return {name: drawing() for name, drawing in drawings.items()}, notes

    return figures


BOTH = {f"cifar100/resnet18/{method}": SEEDS for method in ("cross-entropy", "cs-kd")}


@pytest.fixture(scope="module")
def drawn(draw):
    others = {"cub200/resnet18/cross-entropy": SEEDS, "cub200/resnet18/cs-kd": {0: "failed"}}
    return draw(BOTH | others | {"cifar100/resnet10/cs-kd": SEEDS})


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_dataset_with_both_methods_has_every_figure(drawn):
    figures, notes = drawn
    kinds = ("figure1b", "figure2", "figure3", "figure5", "curves", "overfitting", "calibration")
    assert [name for name in figures if name.endswith(CELL)] == [f"{kind}-{CELL}" for kind in kinds]
    assert len([name for name in figures if name.startswith("figure1b")]) == 1  # of one dataset a network
    assert {
        "figure 3, cifar100, resnet18: virtual-softmax was not run.",
        "figure 5, cifar100, resnet10: not drawn, no method to compare with cs-kd.",
        "figure 1b, cifar100, resnet10: not drawn, cross-entropy was not run.",
        "figure 2, cub200, resnet18: not drawn, cs-kd has no finished run.",
    } <= set(notes)


def test_softmax_bars_show_the_images_of_the_predictions(drawn):
    figure = drawn[0][f"figure1b-{CELL}"]
    images = [axes.images[0].get_array() for axes in figure.axes[::3]]
    assert [tuple(image[0, 0]) for image in images] == [(40 * number, 0, 255) for number in INDICES[:3]]
    assert "3 of the 3 test images that cross-entropy misclassifies" in figure.get_suptitle()
    assert "seed 0" in figure.get_suptitle()


def test_seeds_are_pooled_or_averaged(drawn):
    figures, ece = drawn[0], FakeStore((1, 0, 2, 2), True).ece
    methods = ("cross-entropy", "cs-kd")
    medians = [f"{method}: median \N{MINUS SIGN}0.50, n = 9" for method in methods]
    assert legend(figures[f"figure2-{CELL}"]) == medians
    assert legend(figures[f"figure5-{CELL}"]) == [f"{method}: ECE {ece:.1f} %" for method in methods]
    drop, *_, mean = figures[f"curves-{CELL}"].axes[0].lines
    assert drop.get_xdata() == [0.5, 0.5] and mean.get_ydata() == pytest.approx([3, 2])
    axes = figures[f"overfitting-{CELL}"].axes[0]
    assert axes.get_lines()[1].get_xdata().tolist() == [0, 0]  # test and training errors are equal here
    assert "feature spread 0.75" in figures[f"figure3-{CELL}"].axes[0].get_title()


def test_missing_evaluations_histories_images_and_errors_are_noted(draw, tmp_path):
    figures, notes = draw(BOTH, evaluated=False, data=tmp_path, history=False)
    assert not any(axes.images for axes in figures[f"figure1b-{CELL}"].axes)
    assert "feature spread" not in figures[f"figure3-{CELL}"].axes[0].get_title()
    assert any("without images: the dataset" in note and "is not prepared in DATA_DIR" in note for note in notes)
    assert {
        "figure 2, cifar100, resnet18: not drawn, cross-entropy is not evaluated.",
        "calibration, cifar100, resnet18: not drawn, no run is evaluated.",
        "curves, cifar100, resnet18: cifar100/resnet18/cs-kd/seed0 has no history of train/loss.",
        "curves, cifar100, resnet18: not drawn, no finished run has a history.",
    } <= set(notes)
    _, notes = draw(BOTH, labels=(0, 2, 1, 2), evaluated=False, history=False)
    assert "figure 1b, cifar100, resnet18: not drawn, cross-entropy misclassifies no image." in notes
