"""Training learns, repeats itself exactly, and resumes exactly."""

import contextlib
import math

import numpy as np
import pytest
import torch
from arrays import random_split
from stepping import DIFFERENT_METHODS
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.batch import Normalise
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.methods import build_method
from cskd.models import build_model
from cskd.train import checkpoint
from cskd.train import trainer as trainer_module
from cskd.train.schedule import Schedule
from cskd.train.steps import set_rate, state_of
from cskd.train.trainer import Diverged, Interrupted, Trainer
from cskd.utils.errors import UserError
from cskd.utils.seeding import derived_seed

CPU, META = torch.device("cpu"), torch.device("meta")
SCHEDULE = Schedule(epochs=4, lr=0.1, milestones=(2, 3))
ADAMW = Schedule(epochs=3, lr=0.001, kind="cosine", milestones=(), warmup_epochs=1, optimizer="adamw")
FIXED, MIXED = (8, 8), None  # sizes of images


@pytest.fixture(autouse=True)
def checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_TIME_SHARE", math.inf)


def make_trainer(
    folder=None, *, method="cs-kd", architecture="resnet10", schedule=SCHEDULE, precision="fp32", identity="run",
    size=FIXED, device=CPU, resizing=None,
):  # fmt: skip
    built = build_method(method)
    torch.manual_seed(derived_seed(0, "init"))
    model = build_model(architecture, 4, 8, width=4, build_head=built.build_head, build_auxiliary=built.build_auxiliary)
    augmentation = PadAndCrop(8, 1) if size == FIXED else ResizedCrop(8)
    center_crop = CenterCrop(8, 9 if size == MIXED else None)
    train, test = random_split(42, 4, size=size), random_split(20, 4, size=size, seed=1)
    data = {"batch_size": 16, "device": device, "resizing": resizing}
    return Trainer(
        model,
        built,
        TrainLoader(train, augmentation, center_crop, views=built.views, seed=0, **data),
        TestSet(test, center_crop, **data),
        Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), device),
        schedule,
        seed=0,
        device=device,
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
    settings = {"architecture": "torchvision:mobilenet_v3_small", "schedule": ADAMW}
    expected, predictions = run(make_trainer(**settings))
    run(make_trainer(tmp_path, **settings), 2)
    metrics, resumed = run(make_trainer(tmp_path, **settings))
    assert metrics == expected
    assert_same(resumed, predictions)


@pytest.mark.parametrize("method", ["cs-kd", "cs-kd-e", "kd", "adacos"])
def test_steps_that_read_their_batch_at_a_cursor_are_those_of_the_loader(method, tmp_path):
    """The step that a GPU captures, here kernel by kernel; a stop and a resume in between."""
    expected, predictions = run(make_trainer(method=method))
    for stop_in in (2, None):
        trainer = make_trainer(tmp_path, method=method)
        trainer.steps.captured = trainer.steps.capturable()
        metrics, ours = run(trainer, stop_in)
    assert metrics == expected
    assert_same(ours, predictions)


@pytest.mark.parametrize(
    ("changes", "capturable"),
    [({}, True), ({"method": "mixup"}, False), ({"size": MIXED}, False), ({"schedule": ADAMW}, False)],
)
def test_a_step_is_captured_unless_the_cpu_draws_or_resizes_for_it(changes, capturable):
    assert make_trainer(**changes).steps.can_be_captured() == capturable


def test_learning_rate_of_a_captured_step_changes_in_place_and_is_a_number_in_checkpoints():
    optimizer = make_trainer().optimizer
    tensor = optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert state_of(optimizer)["param_groups"][0]["lr"] == 0.25
    assert type(state_of(optimizer)["param_groups"][0]["lr"]) is float


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


class WaitingCopies(TorchDispatchMode):
    """Counts the copies from the CPU to the device that wait for it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and result.device == META:
            self.count += not kwargs.get("non_blocking", False)
        return result


WAITING_CASES = [(method, None) for method in DIFFERENT_METHODS] + [("cs-kd-e", "resident"), ("cs-kd-e", "streamed")]


@pytest.mark.parametrize(("method", "resizing"), WAITING_CASES)
def test_no_step_waits_for_the_device(method, resizing, monkeypatch):
    """On torch's device ``meta``, which has no values, reading one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())  # unknown on meta
    trainer = make_trainer(method=method, size=MIXED if resizing else FIXED, device=META, resizing=resizing)
    waiting, counts = WaitingCopies(), []
    with waiting, pytest.raises(RuntimeError, match="meta"):  # the epoch's sums are read after its last step
        trainer.train_epoch(0, on_step=lambda progress: counts.append(waiting.count))
    assert counts == [counts[0]] * 3  # the first step's count comes from the start of the epoch
