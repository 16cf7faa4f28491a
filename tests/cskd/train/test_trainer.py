"""Training learns, repeats itself exactly, and resumes exactly."""

import math

import numpy as np
import pytest
import torch
from arrays import random_split

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import build_model
from cskd.train import checkpoint
from cskd.train.schedule import Schedule
from cskd.train.trainer import Diverged, Interrupted, Trainer
from cskd.utils.errors import UserError
from cskd.utils.seeding import derived_seed

CPU = torch.device("cpu")
ALL_METHODS = [*METHODS, *PAPER_COMPOSITES]
SCHEDULE = Schedule(epochs=4, lr=0.1, milestones=(2, 3))
FIXED, MIXED = (8, 8), None  # sizes of images


@pytest.fixture(autouse=True)
def checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_TIME_SHARE", math.inf)


def make_trainer(
    folder=None,
    *,
    method="cs-kd",
    architecture="resnet10",
    seed=0,
    schedule=SCHEDULE,
    precision="fp32",
    identity="run",
    size=FIXED,
):
    built = build_method(method)
    torch.manual_seed(derived_seed(seed, "init"))
    model = build_model(architecture, 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary)
    augmentation = PadAndCrop(8, 1) if size == FIXED else ResizedCrop(8)
    center_crop = CenterCrop(8, 9 if size == MIXED else None)
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
        teacher=build_model("resnet10", 4, 8, width=4) if built.needs_teacher else None,
        checkpoint=None if folder is None else folder / "checkpoint.pt",
        identity=identity,
    )


def run(trainer, stop_in=None):
    """Return (metrics of all recorded epochs without times, predictions); stop in the middle of epoch ``stop_in``."""
    recorded, steps = [], []

    def on_checkpoint(records):
        assert [record["epoch"] for record in records] == list(range(len(records)))
        recorded[:] = records

    def should_stop():
        return sum(step.epoch == stop_in for step in steps) >= 2

    predictions = None
    if stop_in is None:
        predictions = trainer.run(on_checkpoint=on_checkpoint)
    else:
        with pytest.raises(Interrupted):
            trainer.run(on_checkpoint=on_checkpoint, on_step=steps.append, should_stop=should_stop)
    metrics = [
        {name: value for name, value in record["metrics"].items() if not name.startswith("time/")}
        for record in recorded
    ]
    return metrics, predictions


def assert_same(predictions, expected):
    for name in ("logits", "features", "labels"):
        assert np.array_equal(getattr(predictions, name), getattr(expected, name))


def test_resume_is_exact_with_dropout_and_adamw(tmp_path):
    schedule = Schedule(epochs=3, lr=0.001, kind="cosine", milestones=(), warmup_epochs=1, optimizer="adamw")
    settings = {"architecture": "torchvision:mobilenet_v3_small", "schedule": schedule}
    expected, predictions = run(make_trainer(**settings))
    run(make_trainer(tmp_path, **settings), 2)
    metrics, resumed = run(make_trainer(tmp_path, **settings))
    assert metrics == expected
    assert_same(resumed, predictions)


# Each method once, with the precisions and the sizes of images spread over the methods.
CASES = [
    *((m, "resnet10", "bf16" if n % 2 else "fp32", MIXED if n % 3 else FIXED) for n, m in enumerate(ALL_METHODS)),
    ("cs-kd", "resnet10", "bf16", FIXED),
    ("byot", "resnet18", "fp32", FIXED),
    ("byot", "densenet41", "fp32", FIXED),
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
    trainer = make_trainer(size=MIXED, schedule=Schedule(epochs=1))
    run(trainer)
    some, all_images = trainer.predict_training(max_images=30), trainer.predict_training()
    assert (len(some.labels), len(all_images.labels)) == (30, 42)
    split = trainer.loader.split
    trainer.test_set = TestSet(split, trainer.loader.clean, batch_size=8, device=CPU)
    expected = trainer.predict()
    np.testing.assert_allclose(all_images.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(some.logits, expected.logits[some.indices], atol=1e-5)
    assert np.array_equal(some.labels, expected.labels[some.indices])


def test_other_seed_gives_other_predictions():
    schedule = Schedule(epochs=1)
    predictions = [run(make_trainer(seed=seed, schedule=schedule))[1] for seed in (0, 1)]
    assert not np.array_equal(predictions[0].logits, predictions[1].logits)


@pytest.mark.parametrize("method", ["cross-entropy", "cs-kd", "kd", "byot"])
def test_training_lowers_the_error(method):
    metrics, predictions = run(make_trainer(method=method, schedule=Schedule(epochs=12, lr=0.05, milestones=(8,))))
    assert metrics[11]["train/top1_error"] < metrics[0]["train/top1_error"] - 20
    assert metrics[11]["test/top1_error"] < 30  # chance is 75
    assert predictions.features.shape == (20, 32)


def test_each_epoch_records_loss_terms_test_metrics_and_extra_metrics():
    records, extra = [], iter(range(4))
    make_trainer().run(on_checkpoint=records.append, extra_metrics=lambda: {"system/x": next(extra)})
    metrics = [record["metrics"] for record in records[-1]]
    first = metrics[0]
    assert [values["system/x"] for values in metrics] == [0, 1, 2, 3]
    assert {"train/loss", "train/cross_entropy", "train/class_wise_kl", "train/lr", "train/top1_error"} <= set(first)
    assert {"test/top1_error", "test/top5_error", "test/nll", "test/brier", "test/ece"} <= set(first)
    assert ["test/recall_at_1" in values for values in metrics] == [False, False, False, True]
    assert first["train/loss"] == pytest.approx(first["train/cross_entropy"] + first["train/class_wise_kl"], rel=1e-6)
    assert [values["train/lr"] for values in metrics] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    paper = [Schedule().rate(epoch) for epoch in (0, 99, 100, 149, 150, 199)]
    assert paper == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


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


def test_teacher_is_required_frozen_and_not_in_the_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, method="kd")
    teacher = trainer.step.teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run(trainer)
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state["model"]) == set(trainer.model.state_dict())
    parts = (trainer.model, trainer.method, trainer.loader, trainer.test_set, trainer.normalise, SCHEDULE)
    with pytest.raises(ValueError, match="kd needs a teacher"):
        Trainer(*parts, seed=0, device=CPU, precision="fp32")


def test_diverged_run_names_epoch_and_step():
    with pytest.raises(Diverged, match=r"not finite from epoch 1, step 2 on: loss nan.*, lr 1e\+18"):
        run(make_trainer(schedule=Schedule(epochs=2, lr=1e18)))


def test_checkpoint_of_another_run_is_refused(tmp_path):
    run(make_trainer(tmp_path), stop_in=1)
    with pytest.raises(UserError, match="belongs to another run"):
        make_trainer(tmp_path, identity="other")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2], lambda _: b"x"])
def test_damaged_checkpoint_is_reported_and_the_previous_one_restored(tmp_path, damage):
    expected, predictions = run(make_trainer())
    run(make_trainer(tmp_path), stop_in=2)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(damage(file.read_bytes()))
    resumed = make_trainer(tmp_path)
    assert (resumed.next_epoch, resumed.checkpoints.damage) == (1, ["checkpoint.pt is damaged"])
    metrics, again = run(resumed)
    assert metrics == expected
    assert_same(again, predictions)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert make_trainer(tmp_path).records == []


def test_bf16_stays_near_fp32():
    schedule = Schedule(epochs=1)
    full, half = (run(make_trainer(precision=name, schedule=schedule))[0][0]["train/loss"] for name in ("fp32", "bf16"))
    assert half != full
    assert half == pytest.approx(full, rel=0.03)
