"""The step that a GPU captures is the loader's step, and no step waits for the device."""

import contextlib
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from stepping import DIFFERENT_METHODS
from torch.utils._python_dispatch import TorchDispatchMode
from trainers import ADAMW, FIXED, MIXED, assert_same, make_trainer, run

from cskd.train import checkpoint
from cskd.train.steps import set_rate, state_of

META = torch.device("meta")


@functools.cache
def undisturbed(method: str):
    """Return the metrics and predictions of a run with the loader's steps."""
    return run(make_trainer(method=method))


@pytest.mark.parametrize("method", ["cs-kd", "cs-kd-e", "kd", "adacos"])
def test_steps_that_read_their_batch_at_a_cursor_are_those_of_the_loader(method, tmp_path, monkeypatch):
    """The step that a GPU captures, here kernel by kernel; a stop and a resume in between."""
    monkeypatch.setattr(checkpoint, "MAX_TIME_SHARE", math.inf)  # a checkpoint after every epoch
    expected, predictions = undisturbed(method)
    for stop_in in (2, None):
        trainer = make_trainer(tmp_path, method=method)
        trainer.steps.captured = trainer.steps.capturable()
        metrics, ours = run(trainer, stop_in)
    assert metrics == expected
    assert_same(ours, predictions)


@pytest.fixture
def made_up_cuda(monkeypatch):
    """Parts of torch.cuda, without a GPU: streams and captures compute at once, kernel by kernel."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.mark.parametrize("fails", [False, True])
def test_capture_leaves_network_and_optimiser_as_they_were(fails, made_up_cuda, tmp_path, monkeypatch):
    """In a resumed run too. If the capture fails, which is after its warm-up, the steps are eager."""
    monkeypatch.setattr(checkpoint, "MAX_TIME_SHARE", math.inf)
    if fails:
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: 1 / 0)
    expected, predictions = undisturbed("adacos")
    for stop_in in (2, None):
        trainer = make_trainer(tmp_path, method="adacos")
        trainer.steps.device = torch.device("cuda")
        with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
            trainer.compile()
        assert (trainer.steps.captured is None) == fails
        if not fails:
            trainer.steps.captured.replay = trainer.steps.captured.step_once  # the work of a replay
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
