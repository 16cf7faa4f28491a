"""The file that predictions are kept in."""

import numpy as np
import pytest

from cskd.evaluate.predictions import Predictions, load_predictions, save_predictions

LOGITS, FEATURES = np.array([[1, 2], [3, -4], [5, 6]], np.float32), np.ones((3, 4), np.float32)
LABELS = np.array([1, 0, 1])


def test_everything_comes_back(tmp_path):
    kept = Predictions(LOGITS, FEATURES, LABELS, np.array([7, 3, 5]), ("a flower", "<b>"))
    training = Predictions(LOGITS + 1, FEATURES, LABELS[::-1])
    save_predictions(tmp_path / "p.npz", kept, training)
    loaded = load_predictions(tmp_path / "p.npz")
    for name in ("logits", "features", "labels", "indices"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(kept, name))
    assert loaded.classes == kept.classes
    logits, labels = loaded.training
    np.testing.assert_array_equal(logits, LOGITS + 1)
    np.testing.assert_array_equal(labels, [1, 0, 1])


def test_a_file_of_an_earlier_version_lacks_what_it_did_not_keep(tmp_path):
    np.savez(tmp_path / "p.npz", logits=LOGITS, features=FEATURES, labels=LABELS)
    loaded = load_predictions(tmp_path / "p.npz")
    assert (loaded.indices, loaded.classes, loaded.training) == (None, (), None)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="is damaged"):
        load_predictions(tmp_path / "text.npz")
    save_predictions(tmp_path / "p.npz", Predictions(LOGITS, FEATURES, LABELS))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged"):
        load_predictions(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", logits=LOGITS)
    with pytest.raises(KeyError, match="features"):
        load_predictions(tmp_path / "other.npz")
