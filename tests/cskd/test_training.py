"""The loop: it learns, it repeats itself exactly, and it resumes exactly."""

import math

import numpy as np
import pytest
import torch
from arrays import random_split

from cskd.data.loader import Normalise, TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import build_model
from cskd.train import checkpoint as checkpoints
from cskd.train.trainer import Diverged, Interrupted, Schedule, Trainer
from cskd.utils import files
from cskd.utils.errors import UserError
from cskd.utils.files import DiskFull
from cskd.utils.seeding import derived_seed

CPU = torch.device("cpu")
EVERY = [*METHODS, *PAPER_COMPOSITES]
SCHEDULE = Schedule(epochs=4, lr=0.1, milestones=(2, 3))


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "MOST_SHARE", math.inf)


def trainer(
    tmp_path=None,
    *,
    method="cs-kd",
    architecture="resnet10",
    seed=0,
    schedule=SCHEDULE,
    precision="fp32",
    known_epochs=None,
    identity="run",
    size=(8, 8),
):
    built = build_method(method)
    torch.manual_seed(derived_seed(seed, "init"))
    model = build_model(architecture, 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary)
    teacher = build_model("resnet10", 4, 8, width=4) if built.needs_teacher else None
    augmentation = PadAndCrop(8, 1) if size == (8, 8) else ResizedCrop(8)
    center_crop = CenterCrop(8, 9 if size is None else None)
    train, test = random_split(42, 4, size=size), random_split(20, 4, size=size, seed=1)
    return Trainer(
        model,
        built,
        TrainLoader(train, augmentation, center_crop, views=built.views, batch_size=16, seed=seed, device=CPU),
        TestSet(test, center_crop, batch_size=8, device=CPU),
        Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), CPU),
        schedule,
        seed=seed,
        device=CPU,
        precision=precision,
        teacher=teacher,
        checkpoint=None if tmp_path is None else tmp_path / "checkpoint.pt",
        known_epochs=known_epochs,
        identity=identity,
    )


def run(trainer, stop_after=None):
    """(epochs' metrics without times, predictions); stops in the middle of the epoch after ``stop_after``."""
    epochs, steps = {}, 0

    def on_step(progress):
        nonlocal steps
        steps += progress.epoch == stop_after

    def on_epoch(epoch, metrics):
        kept = {name: value for name, value in metrics.items() if not name.startswith("time/")}
        assert epochs.setdefault(epoch, kept) == kept

    predictions = None
    if stop_after is None:
        predictions = trainer.run(on_epoch=on_epoch)
    else:
        with pytest.raises(Interrupted):
            trainer.run(on_epoch=on_epoch, on_step=on_step, should_stop=lambda: steps >= 2)
    return epochs, predictions


def assert_same(one, two):
    for name in ("logits", "features", "labels"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("size", [(8, 8), None])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", EVERY)
def test_a_run_interrupted_twice_gives_the_undisturbed_runs_numbers_bit_for_bit(tmp_path, method, precision, size):
    assert_resumes_exactly(tmp_path, method=method, precision=precision, size=size)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet41"])
def test_so_does_every_kind_of_network(tmp_path, architecture):
    assert_resumes_exactly(tmp_path, method="byot", architecture=architecture)


def assert_resumes_exactly(tmp_path, **settings):
    whole, predictions = run(trainer(**settings))
    parts = {}
    for stop_after in (1, 2, None):
        epochs, resumed = run(trainer(tmp_path, **settings), stop_after)
        parts |= epochs
    assert parts == whole
    assert_same(resumed, predictions)


def test_a_finished_run_gives_its_predictions_again(tmp_path):
    epochs, predictions = run(trainer(tmp_path))
    again, repeated = run(trainer(tmp_path))
    assert_same(predictions, repeated)
    assert again == {3: epochs[3]}


@pytest.mark.parametrize("size", [(8, 8), None])
def test_training_images_are_predicted_as_a_test_set_of_them_would_be(size):
    trained = trainer(size=size)
    run(trained)
    some, every = trained.predict_training(most=30), trained.predict_training()
    assert (len(some.labels), len(every.labels)) == (30, 42)
    split = trained.loader.split
    trained.test_set = TestSet(split, trained.loader.clean, batch_size=8, device=CPU)
    expected = trained.predict()
    np.testing.assert_allclose(every.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(some.logits, expected.logits[some.indices], atol=1e-5)
    assert np.array_equal(some.labels, expected.labels[some.indices])


def test_seeds_differ():
    _, one = run(trainer(seed=0))
    _, two = run(trainer(seed=1))
    assert not np.array_equal(one.logits, two.logits)


@pytest.mark.parametrize("method", EVERY)
def test_it_learns(method):
    epochs, predictions = run(trainer(method=method, schedule=Schedule(epochs=12, lr=0.05, milestones=(8,))))
    assert epochs[11]["train/top1_error"] < epochs[0]["train/top1_error"] - 20
    assert epochs[11]["test/top1_error"] < 30  # chance is 75
    assert predictions.features.shape == (20, 32)


def test_every_epoch_tells_its_loss_terms_and_test_metrics():
    epochs, _ = run(trainer())
    assert {
        "train/loss",
        "train/cross_entropy",
        "train/class_wise_kl",
        "train/lr",
        "train/top1_error",
    } <= set(epochs[0])
    assert {"test/top1_error", "test/top5_error", "test/nll", "test/brier", "test/ece"} <= set(epochs[0])
    assert [("test/recall_at_1" in epochs[epoch]) for epoch in range(4)] == [False, False, False, True]
    metrics = epochs[0]
    total = metrics["train/cross_entropy"] + 1.0 * metrics["train/class_wise_kl"]
    assert metrics["train/loss"] == pytest.approx(total, rel=1e-6)


def test_the_learning_rate_falls_after_the_milestones():
    schedule = Schedule()
    rates = [schedule.rate(epoch) for epoch in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    epochs, _ = run(trainer())
    assert [epochs[epoch]["train/lr"] for epoch in range(4)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_the_first_step_is_sgd_by_hand():
    """theta - lr * (gradient + weight decay * theta), on every parameter, BatchNorm's and biases too."""
    schedule = Schedule(epochs=1, lr=0.1, weight_decay=0.01)
    one = trainer(method="cross-entropy", schedule=schedule)
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    batch = next(iter(one.loader.epoch(0)))
    one.model.train()
    torch.nn.functional.cross_entropy(one.model(one.normalise(batch.views["x"])), batch.labels).backward()
    expected = [
        old - 0.1 * (parameter.grad + 0.01 * old) for old, parameter in zip(before, one.model.parameters(), strict=True)
    ]
    two = trainer(method="cross-entropy", schedule=schedule)
    taken = []
    with pytest.raises(Interrupted):
        two.run(on_epoch=lambda *_: None, on_step=taken.append, should_stop=lambda: bool(taken))
    for new, parameter in zip(expected, two.model.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), new, atol=1e-6, rtol=1e-5)


def test_a_method_that_needs_a_teacher_is_refused_without_one():
    whole = trainer(method="kd")
    with pytest.raises(ValueError, match="kd needs a teacher"):
        Trainer(
            whole.model, whole.method, whole.loader, whole.test_set, whole.normalise, SCHEDULE,
            seed=0, device=CPU, precision="fp32",
        )  # fmt: skip


def test_the_teacher_is_frozen_and_in_evaluation_mode_whatever_it_was():
    one = trainer(method="kd")
    before = {name: value.clone() for name, value in one.step.teacher.state_dict().items()}
    run(one)
    assert not one.step.teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in one.step.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in one.step.teacher.state_dict().items())


def test_the_teacher_is_no_part_of_the_checkpoint(tmp_path):
    one = trainer(tmp_path, method="kd")
    run(one)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state["model"]) == set(one.model.state_dict())
    assert len(state["optimizer"]["param_groups"][0]["params"]) == len(list(one.model.parameters()))


def test_a_diverging_run_says_where():
    with pytest.raises(Diverged, match=r"not finite from epoch 1, step 2 on: loss nan.*, lr 1e\+18"):
        run(trainer(schedule=Schedule(epochs=2, lr=1e18)))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(trainer(tmp_path), stop_after=1)
    with pytest.raises(UserError, match="another run"):
        trainer(tmp_path, identity="other")


@pytest.mark.parametrize("damage", ["empty", "truncated", "nonsense"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken_up(tmp_path, damage):
    whole, predictions = run(trainer())
    run(trainer(tmp_path), stop_after=2)
    file = tmp_path / "checkpoint.pt"
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "nonsense": b"no checkpoint"}[damage])
    resumed = trainer(tmp_path)
    assert (resumed.next_epoch, resumed.damage) == (1, ["checkpoint.pt is damaged"])
    epochs, again = run(resumed)
    assert epochs == whole
    assert_same(again, predictions)


def test_with_both_checkpoints_damaged_a_run_starts_anew(tmp_path):
    run(trainer(tmp_path), stop_after=2)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    resumed = trainer(tmp_path)
    assert resumed.next_epoch == 0
    assert sorted(resumed.damage) == ["checkpoint.pt is damaged", "previous.pt is damaged"]


def test_a_checkpoint_that_is_ahead_of_what_is_recorded_is_not_taken_up(tmp_path):
    run(trainer(tmp_path), stop_after=3)
    assert [trainer(tmp_path, known_epochs=known).next_epoch for known in (3, 2, 1, 0)] == [3, 3, 2, 0]


def test_epochs_between_two_checkpoints_are_told_once_they_are_in_one(tmp_path, monkeypatch):
    whole, predictions = run(trainer())
    due = iter([True, False, False, True])
    monkeypatch.setattr(checkpoints.Checkpoints, "is_due", lambda self: next(due))
    epochs, _ = run(trainer(tmp_path), stop_after=2)  # in the middle of the third, the second being in no checkpoint
    assert list(epochs) == [0]
    epochs, _ = run(trainer(tmp_path), stop_after=3)
    assert epochs == {epoch: whole[epoch] for epoch in (0, 1, 2)}
    # As if the process had died after the checkpoint and before it told of its epochs.
    assert [trainer(tmp_path, known_epochs=known).next_epoch for known in (3, 2, 1, 0)] == [3, 3, 3, 1]
    epochs, again = run(trainer(tmp_path, known_epochs=1))
    assert epochs == {epoch: whole[epoch] for epoch in (1, 2, 3)}
    assert_same(again, predictions)


def test_a_checkpoint_of_before_they_held_several_epochs_is_taken_up(tmp_path):
    whole, _ = run(trainer(tmp_path), stop_after=2)
    file = tmp_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    (state["metrics"],) = state["metrics"]
    torch.save(state, file)
    epochs, _ = run(trainer(tmp_path), stop_after=2)
    assert epochs == {1: whole[1]}


def test_a_checkpoint_of_before_there_were_digests_is_taken_up(tmp_path):
    run(trainer(tmp_path), stop_after=2)
    file = tmp_path / "checkpoint.pt"
    torch.save(torch.load(file, weights_only=True), file)
    assert trainer(tmp_path).next_epoch == 2
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert trainer(tmp_path).next_epoch == 1


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run(trainer(tmp_path), stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"checkpoint\.pt cannot be written \(No space left on device\): make room"):
        run(trainer(tmp_path))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    monkeypatch.undo()
    assert trainer(tmp_path).next_epoch == 1


def test_bf16_stays_near_fp32():
    full, _ = run(trainer(precision="fp32"))
    half, _ = run(trainer(precision="bf16"))
    assert half[0]["train/loss"] != full[0]["train/loss"]
    assert math.isclose(half[0]["train/loss"], full[0]["train/loss"], rel_tol=0.03)
