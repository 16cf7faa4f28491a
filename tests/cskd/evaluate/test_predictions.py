"""The file of predictions."""

import numpy as np
import pytest

from cskd.evaluate.predictions import Predictions, load_predictions, save_predictions

LOGITS, FEATURES = np.array([[1, 2], [3, -4], [5, 6]], np.float32), np.ones((3, 4), np.float32)
LABELS = np.array([1, 0, 1])


def test_saved_predictions_are_loaded_unchanged(tmp_path):
    saved = Predictions(LOGITS, FEATURES, LABELS, np.array([7, 3, 5]), ("a flower", "<b>"))
    training = Predictions(LOGITS + 1, FEATURES, LABELS[::-1])
    unused = Predictions(LOGITS + 2, FEATURES, LABELS)
    near_ood = Predictions(LOGITS + 3, FEATURES, LABELS)
    save_predictions(tmp_path / "p.npz", saved, training, unused, near_ood)
    loaded = load_predictions(tmp_path / "p.npz")
    for name in ("logits", "features", "labels", "indices"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert loaded.classes == saved.classes
    np.testing.assert_array_equal(loaded.near_ood, near_ood.logits)
    for stored, images in ((loaded.training, training), (loaded.unused, unused)):
        np.testing.assert_array_equal(stored[0], images.logits)
        np.testing.assert_array_equal(stored[1], images.labels)


def test_damaged_file_raises_value_error(tmp_path):
    save_predictions(tmp_path / "p.npz", Predictions(LOGITS, FEATURES, LABELS))
    (tmp_path / "p.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged"):
        load_predictions(tmp_path / "p.npz")
