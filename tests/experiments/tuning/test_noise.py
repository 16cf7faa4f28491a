"""Standard errors of trials, and studies whose trials differ by chance only."""

import math

import numpy as np
import pytest
from arrays import random_predictions

from cskd.evaluate.predictions import Predictions, save_predictions
from experiments.runs.folder import RunFolder
from experiments.tuning.noise import spread_within_noise, standard_errors
from experiments.tuning.trial import COMPLETE, Trial


def folder_with(path, logits, labels) -> RunFolder:
    path.mkdir()
    folder = RunFolder(path)
    save_predictions(folder.predictions, Predictions(logits, np.zeros((len(labels), 2)), labels))
    return folder


def test_standard_error_of_one_seed_is_over_the_images_and_of_two_also_over_the_seeds(tmp_path):
    logits, labels = random_predictions(0, samples=2000, classes=4)
    one = folder_with(tmp_path / "one", logits, labels)
    error = float(np.mean(logits.argmax(1) != labels))
    over_images = 100 * math.sqrt(error * (1 - error) / 2000)
    found = standard_errors([one])
    assert found["top1_error"] == pytest.approx(over_images, rel=0.3)
    assert {"ece", "nll"} <= set(found)
    right = logits + 100 * np.eye(4)[labels]  # a second seed without errors: half of its distance is added
    both = standard_errors([one, folder_with(tmp_path / "two", right, labels)])["top1_error"]
    assert both == pytest.approx(math.hypot(found["top1_error"] / 2, 100 * error / 2), rel=0.01)
    one.predictions.unlink()
    assert standard_errors([one]) == {}


def test_spread_of_the_trials_is_compared_with_the_standard_error_of_one():
    def study(*errors: float) -> list[Trial]:
        made = {"values": (1.0,), "standard_errors": {"top1_error": 1.0}}
        return [
            Trial(number, COMPLETE, {}, metrics={"top1_error": error}, **made) for number, error in enumerate(errors)
        ]

    assert spread_within_noise("error", study(20.0, 21.0, 22.0)) == (1.0, 1.0)
    assert spread_within_noise("error", study(10.0, 20.0, 30.0)) is None
    assert spread_within_noise("error", study(20.0, 21.0)) is None
