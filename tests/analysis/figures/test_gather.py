"""The figures of a pool of tracked runs: which are drawn, from what, and what is said where something is missing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.figures import gather
from analysis.figures.gather import pool_figures
from analysis.figures.sources import prepared_test_split
from analysis.load.pools import pools
from analysis.load.store import Store, UnusableRun
from analysis.stats.evaluation import RAW, Evaluation
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import expected_calibration_error, reliability_bins

CLASSES = ("a $x$", "b_c", "<img onerror=alert(1)>")
INDICES = np.array([3, 5, 0, 2])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """One prepared dataset of six test images, each of another colour, beside a damaged one."""
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


class Predicting:
    """A store whose runs all have the same predictions and histories."""

    def __init__(self, predictions):
        self.predictions = predictions

    def load_predictions(self, run, cache):
        return self.predictions

    def load_history(self, run, names, cache):
        return pd.DataFrame({name: [run.seed + 2.0, run.seed + 1.0] for name in names})


@pytest.fixture(autouse=True)
def quick_embedding(monkeypatch):
    """t-SNE takes seconds, and is tested where it is made."""
    monkeypatch.setattr(gather, "embed", lambda features: features[:, :2])


def predictions(**changes):
    logits = np.array([[9, 0, 1], [0, 1, 9], [0, 9, 8], [1, 0, 9]], dtype=np.float32)  # only the last is right
    features = np.random.RandomState(0).standard_normal((4, 3)).astype(np.float32)
    return dataclasses.replace(Predictions(logits, features, np.array([1, 0, 2, 2]), INDICES, CLASSES), **changes)


def evaluation(run_key, of):
    wrong = np.array([-0.5, -0.25, -1])
    return Evaluation(
        run_key=run_key,
        metrics={RAW: {"ece": 100 * expected_calibration_error(of.logits, of.labels)}},
        temperatures={},
        replicates={"ece": 100 * expected_calibration_error(of.logits, of.labels) + np.linspace(-1, 1, 20)},
        bins=reliability_bins(of.logits, of.labels, 20),
        predicted_log_probability=wrong,
        true_log_probability=4 * wrong,
        separation={"feature_spread": 0.75},
    )


@pytest.fixture(scope="module")
def pool(store, data_dir):
    """The paper profile's, tested on the small dataset."""
    first = pools(store.load(["table1"]))[0]
    digest = open_dataset(data_dir / "prepared" / "small").digest
    settings = {"params.data_digest": digest, "params.schedule.milestones": "[1]"}
    return dataclasses.replace(first, runs=first.runs.assign(**settings))


def drawn(pool, of, tmp_path, data_dir):
    evaluations = {key: evaluation(key, of) for key in pool.done.run_key}
    return pool_figures(pool, Predicting(of), evaluations, tmp_path, data_dir)


def test_a_dataset_that_has_both_methods_has_every_figure(pool, tmp_path, data_dir):
    figures, notes = drawn(pool, predictions(), tmp_path, data_dir)
    names = [name for name in figures if name.endswith("cifar100-resnet18")]
    kinds = ("figure1b", "figure2", "figure3", "figure5", "curves", "calibration")
    assert names == [f"{kind}-cifar100-resnet18" for kind in kinds]
    assert "figure 3, cifar100, resnet18: virtual-softmax was not run." in notes
    assert "figure 3, cifar100, resnet18: adacos was not run." in notes
    assert "figure 5, cifar100, resnet10: not drawn, nothing to set beside cs-kd." in notes
    assert "figure 1b, cifar100, resnet10: not drawn, cross-entropy was not run." in notes
    assert "figure 2, cub200, resnet18: not drawn, cs-kd has no finished run." in notes
    assert not any(name.startswith(("figure1b-mit67", "figure3-cub200")) for name in figures)  # one set is pictured
    assert len([name for name in figures if name.startswith("figure1b")]) == 1


def test_softmax_bars_show_the_images_that_the_predictions_are_of(pool, tmp_path, data_dir):
    figures, _ = drawn(pool, predictions(), tmp_path, data_dir)
    figure = figures["figure1b-cifar100-resnet18"]
    images = [axes.images[0].get_array() for axes in figure.axes[::3]]
    assert [tuple(image[0, 0]) for image in images] == [(40 * number, 0, 255) for number in INDICES[:3]]
    assert "3 of the 3 test images that cross-entropy misclassifies" in figure.get_suptitle()
    assert "seed 0" in figure.get_suptitle()


def test_softmax_bars_stand_without_images_where_none_are_at_hand(pool, tmp_path, data_dir):
    early = predictions(indices=None, classes=())
    figures, notes = drawn(pool, early, tmp_path, data_dir)
    figure = figures["figure1b-cifar100-resnet18"]
    assert not any(axes.images for axes in figure.axes)
    assert {label.get_text() for label in figure.axes[0].get_yticklabels()} == {"class 0", "class 1", "class 2"}
    assert any("without images, since runs of earlier versions" in note for note in notes)
    _, notes = drawn(pool, predictions(), tmp_path, tmp_path / "empty")
    assert any("are not prepared in DATA_DIR" in note for note in notes)


def test_without_a_wrong_answer_nothing_is_shown_of_them(pool, tmp_path, data_dir):
    right = predictions(labels=np.array([0, 2, 1, 2]))
    figures, notes = drawn(pool, right, tmp_path, data_dir)
    assert "figure1b-cifar100-resnet18" not in figures
    assert "figure 1b, cifar100, resnet18: not drawn, cross-entropy misclassifies no image." in notes


def test_seeds_are_pooled_and_averaged(pool, tmp_path, data_dir):
    of = predictions()
    figures, _ = drawn(pool, of, tmp_path, data_dir)
    message = [text.get_text() for text in figures["figure2-cifar100-resnet18"].axes[0].get_legend().get_texts()]
    assert message == [f"{method}: median \N{MINUS SIGN}0.50, n = 9" for method in ("cross-entropy", "cs-kd")]
    ece = 100 * expected_calibration_error(of.logits, of.labels)
    pair = figures["figure5-cifar100-resnet18"].axes[0]
    assert [text.get_text() for text in pair.get_legend().get_texts()] == [
        f"cross-entropy: ECE {ece:.1f} %",
        f"cs-kd: ECE {ece:.1f} %",
    ]
    error = figures["curves-cifar100-resnet18"].axes[0]
    drop, *_, mean = error.lines
    assert drop.get_xdata() == [0.5, 0.5] and mean.get_ydata() == pytest.approx([3, 2])
    assert "feature spread 0.75" in figures["figure3-cifar100-resnet18"].axes[0].get_title()


def test_what_is_not_evaluated_is_named(pool, tmp_path, data_dir):
    figures, notes = pool_figures(pool, Predicting(predictions()), {}, tmp_path, data_dir)
    assert "figure 2, cifar100, resnet18: not drawn, cross-entropy is not evaluated." in notes
    assert "calibration, cifar100, resnet18: not drawn, no run is evaluated." in notes
    assert "feature spread" not in figures["figure3-cifar100-resnet18"].axes[0].get_title()


def test_runs_that_lack_a_history_are_named(pool, store, tmp_path, data_dir):
    _, notes = pool_figures(pool, store, {}, tmp_path, data_dir)
    assert "curves, cifar100, resnet18: cifar100/resnet18/cs-kd/seed0 has no history of train/loss." in notes
    assert "curves, cifar100, resnet18: not drawn, no finished run has a history." in notes


def test_a_prepared_test_split_is_found_by_its_digest_alone(data_dir):
    assert prepared_test_split("0" * 64, data_dir) is None
    assert prepared_test_split("0" * 64, data_dir / "nowhere") is None


def test_a_history_is_by_epoch_and_asked_for_once(store, tmp_path):
    run = pools(store.load(["table1"]))[0].runs_of("cifar100", "resnet18", "cs-kd").iloc[1]
    history = store.load_history(run, ["test/top1_error", "test/ece"], tmp_path)
    assert history.index.tolist() == [0, 1]
    assert history["test/top1_error"].tolist() == [44.5, 22.25] and history["test/ece"].tolist() == [11, 5.5]
    again = Store.load_history(None, run, ["test/ece"], tmp_path)  # there is no store that could be asked
    assert again["test/ece"].tolist() == [11, 5.5]
    with pytest.raises(UnusableRun, match="seed1 has no history of train/loss"):
        store.load_history(run, ["test/ece", "train/loss"], tmp_path)


def test_an_infinite_epoch_stays_infinite_in_the_cache(store, tmp_path):
    run = pools(store.load(["table1-mini"]))[0].runs_of("cifar100", "resnet10", "cs-kd").iloc[2]
    for _ in range(2):
        assert store.load_history(run, ["test/nll"], tmp_path)["test/nll"].tolist() == [np.inf, np.inf]


def test_the_history_of_a_run_that_goes_on_is_not_kept(store, tmp_path):
    run = pools(store.load(["table1"]))[0].runs_of("cifar100", "resnet18", "cs-kd").iloc[0].copy()
    run["state"] = "running"
    store.load_history(run, ["test/ece"], tmp_path)
    assert not list(tmp_path.rglob("*.npz"))
