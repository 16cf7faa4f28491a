"""Training learns, repeats itself exactly, and resumes exactly."""

import math

import numpy as np
import pytest
import torch
from stepping import DIFFERENT_METHODS
from trainers import ADAMW, CPU, FIXED, MIXED, SCHEDULE, assert_same, make_trainer, run

from cskd.data.loader import TestSet
from cskd.train import checkpoint
from cskd.train import trainer as trainer_module
from cskd.train.schedule import Schedule
from cskd.train.trainer import Diverged, Interrupted, Trainer
from cskd.utils.errors import UserError


@pytest.fixture(autouse=True)
def checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_TIME_SHARE", math.inf)


def test_resume_is_exact_with_dropout_and_adamw(tmp_path):
    settings = {"architecture": "torchvision:mobilenet_v3_small", "schedule": ADAMW}
    expected, predictions = run(make_trainer(**settings))
    run(make_trainer(tmp_path, **settings), 2)
    metrics, resumed = run(make_trainer(tmp_path, **settings))
    assert metrics == expected
    assert_same(resumed, predictions)


# The precisions and the sizes of images are spread over the methods.
CASES = [
    *((m, "resnet10", "bf16" if n % 2 else "fp32", MIXED if n % 3 else FIXED) for n, m in enumerate(DIFFERENT_METHODS)),
    ("cs-kd", "densenet41", "fp32", FIXED),
]


@pytest.mark.parametrize(("method", "architecture", "precision", "size"), CASES)
def test_resume_after_two_interruptions_gives_identical_results(tmp_path, method, architecture, precision, size):
    settings = {"method": method, "architecture": architecture, "precision": precision, "size": size}
    expected, predictions = run(make_trainer(**settings))
    for stop_in in (1, 2):
        metrics, _ = run(make_trainer(tmp_path, **settings), stop_in)
        assert metrics == expected[:stop_in]
    for _ in range(2):  # the second time, the run is finished already
        metrics, resumed = run(make_trainer(tmp_path, **settings))
        assert metrics == expected
        assert_same(resumed, predictions)


def test_epochs_between_two_checkpoints_are_recorded_with_the_later_one(tmp_path, monkeypatch):
    expected, predictions = run(make_trainer())
    due = iter([True, False, False, True])
    monkeypatch.setattr(checkpoint.Checkpoints, "is_due", lambda self: next(due))
    assert run(make_trainer(tmp_path), stop_in=2)[0] == expected[:1]
    assert run(make_trainer(tmp_path), stop_in=3)[0] == expected[:3]
    metrics, again = run(make_trainer(tmp_path))
    assert metrics == expected
    assert_same(again, predictions)


def test_predictions_of_training_images_equal_those_of_a_test_set():
    trainer = make_trainer(size=MIXED)
    trainer.train_epoch(0)
    some = trainer.predict_training(max_images=30)
    assert len(some.labels) == 30
    trainer.test_set = TestSet(trainer.loader.split, trainer.loader.clean, batch_size=8, device=CPU)
    expected = trainer.predict()
    np.testing.assert_allclose(some.logits, expected.logits[some.indices], atol=1e-5)
    assert np.array_equal(some.labels, expected.labels[some.indices])


def test_training_lowers_the_error():
    metrics, predictions = run(make_trainer(schedule=Schedule(epochs=12, lr=0.05, milestones=(8,))))
    assert metrics[11]["train/top1_error"] < metrics[0]["train/top1_error"] - 20
    assert metrics[11]["test/top1_error"] < 30  # chance is 75
    assert predictions.features.shape == (20, 32)


def test_each_epoch_records_loss_terms_test_metrics_and_extra_metrics():
    records, extra = [], iter(range(4))
    make_trainer().run(on_checkpoint=records.append, extra_metrics=lambda: {"system/x": next(extra)})
    metrics = [record["metrics"] for record in records[-1]]
    first = metrics[0]
    assert [values["system/x"] for values in metrics] == [0, 1, 2, 3]
    assert {"train/lr", "train/top1_error", "test/top1_error", "test/ece"} <= set(first)
    assert ["test/recall_at_1" in values for values in metrics] == [False, False, False, True]
    assert first["train/loss"] == pytest.approx(first["train/cross_entropy"] + first["train/class_wise_kl"], rel=1e-6)
    assert [values["train/lr"] for values in metrics] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    paper = [Schedule().rate(epoch) for epoch in (0, 99, 100, 149, 150, 199)]
    assert paper == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_outputs_stay_on_the_device_until_the_last_epoch(monkeypatch):
    given, copied = [], []
    evaluate, copy = trainer_module.evaluate_predictions, trainer_module._predictions
    monkeypatch.setattr(
        trainer_module, "evaluate_predictions", lambda *values: given.append(values) or evaluate(*values)
    )
    monkeypatch.setattr(trainer_module, "_predictions", lambda *values: copied.append(len(given)) or copy(*values))
    predictions = make_trainer().run()
    assert all(isinstance(value, torch.Tensor) for logits, labels, *_ in given for value in (logits, labels))
    assert [features is None for _, _, features, _ in given] == [True, True, True, False]
    assert copied == [4]
    assert np.array_equal(predictions.logits, given[-1][0])


def test_first_step_is_sgd_with_weight_decay_on_every_parameter():
    schedule = Schedule(epochs=1, lr=0.1, weight_decay=0.01)
    reference = make_trainer(method="cross-entropy", schedule=schedule)
    before = [parameter.detach().clone() for parameter in reference.model.parameters()]
    batch = next(iter(reference.loader.epoch(0)))
    logits = reference.model.train()(reference.normalise(batch.views["x"]))
    torch.nn.functional.cross_entropy(logits, batch.labels).backward()
    trainer, steps = make_trainer(method="cross-entropy", schedule=schedule), []
    with pytest.raises(Interrupted):
        trainer.run(on_step=steps.append, should_stop=lambda: bool(steps))
    for old, gradient, new in zip(before, reference.model.parameters(), trainer.model.parameters(), strict=True):
        expected = old - 0.1 * (gradient.grad + 0.01 * old)
        torch.testing.assert_close(new.detach(), expected, atol=1e-6, rtol=1e-5)


def test_teacher_is_required_and_not_in_the_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, method="kd", schedule=Schedule(epochs=1))
    run(trainer)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state["model"]) == set(trainer.model.state_dict())
    parts = (trainer.model, trainer.method, trainer.loader, trainer.test_set, trainer.normalise, SCHEDULE)
    with pytest.raises(ValueError, match="kd needs a teacher"):
        Trainer(*parts, seed=0, device=CPU, precision="fp32")


def test_diverged_run_names_epoch_and_step():
    with pytest.raises(Diverged, match=r"not finite from epoch 1, step 2 on: loss nan.*, lr 1e\+18"):
        run(make_trainer(schedule=Schedule(epochs=2, lr=1e18)))


def test_damaged_checkpoint_is_reported_and_the_previous_one_restored(tmp_path):
    expected, predictions = run(make_trainer())
    run(make_trainer(tmp_path), stop_in=2)
    with pytest.raises(UserError, match="belongs to another run"):
        make_trainer(tmp_path, identity="other")
    file = tmp_path / "checkpoint.pt"
    content = file.read_bytes()
    for damaged in (b"", b"x", content[: len(content) // 2]):
        file.write_bytes(damaged)
        resumed = make_trainer(tmp_path)
        assert (resumed.next_epoch, resumed.checkpoints.damage) == (1, ["checkpoint.pt is damaged"])
    metrics, again = run(resumed)
    assert metrics == expected
    assert_same(again, predictions)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert make_trainer(tmp_path).records == []


@pytest.mark.parametrize(
    ("epoch_seconds", "cost", "expected"),
    [
        (60.0, 0.9, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # long epochs
        (1.0, 0.09, [1, 6]),  # 2 % of the time is 4.5 s
        (4.0, 5.0, [1, 9]),  # expensive checkpoints: every 30 s
    ],
)
def test_checkpoints_take_at_most_two_percent_of_the_time(monkeypatch, tmp_path, epoch_seconds, cost, expected):
    monkeypatch.undo()  # the fixture for all tests
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_archive", lambda *_, **__: now.__setitem__(0, now[0] + cost))
    checkpoints, written = checkpoint.Checkpoints(tmp_path / "checkpoint.pt", "run"), []
    for number in range(1, 11):
        now[0] += epoch_seconds
        if checkpoints.is_due():
            checkpoints.write({"records": []})
            written.append(number)
    assert written == expected


def test_bf16_stays_near_fp32():
    full, half = (make_trainer(precision=name).train_epoch(0)["train/loss"] for name in ("fp32", "bf16"))
    assert half != full
    assert half == pytest.approx(full, rel=0.03)
