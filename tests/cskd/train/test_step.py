"""A step's arithmetic against its parts, and compiled against not compiled."""

import contextlib
import shutil

import pytest
import torch
from stepping import CLASSES, batch_of, float_images, model_for, step_loss, teacher_for

from cskd.data.loader import Batch
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.train.step import Step

CPU = torch.device("cpu")


def made(method, precision="fp32"):
    model = model_for(method).train()
    return model, Step(model, method, float_images, precision, CPU, teacher_for(method))


def transformed(method) -> Batch:
    return method.transform(batch_of(method), torch.Generator().manual_seed(5))


def gradients(model) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.fixture
def traced(monkeypatch):
    """torch.compile up to its code generation: the same graphs, forwards and backwards, run by torch's own kernels."""
    compile_ = torch.compile

    def without_generator(function, **options):
        del options["options"]
        return compile_(function, backend="aot_eager", **options)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", without_generator)
    yield
    torch.compiler.reset()


def test_a_step_gives_the_loss_its_terms_and_the_wrong_answers():
    method = build_method("cs-kd", {"temperature": 4, "lambda_cls": 2})
    batch = batch_of(method)
    _, step = made(method)
    loss, sums = step(batch)
    torch.testing.assert_close(loss, step_loss(method, model_for(method).train(), batch))
    assert sums.dtype == torch.float64
    assert not sums.requires_grad
    total, cross_entropy, class_wise, wrong = (sums / 6).tolist()
    assert total == pytest.approx(loss.item(), rel=1e-6)
    assert total == pytest.approx(cross_entropy + 2 * class_wise, rel=1e-6)
    logits = model_for(method).train()(float_images(batch.views["x"]))
    assert wrong == pytest.approx((logits.argmax(1) != batch.labels).double().mean().item())


@pytest.mark.parametrize("name", [*METHODS, *PAPER_COMPOSITES])
def test_every_method_can_be_compiled_whole_and_gives_the_same(name, traced):
    method = build_method(name)
    batch = transformed(method)
    model, step = made(method)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    blank = Batch({view: torch.zeros_like(x) for view, x in batch.views.items()}, batch.labels, batch.targets, CLASSES)
    step.compile(blank)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert gradients(model) == []
    loss, sums = step(batch)
    loss.backward()
    other, plain = made(method)
    expected, expected_sums = plain(batch)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(sums, expected_sums)
    assert len(gradients(model)) == len(gradients(other)) > 0
    for one, two in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):  # BatchNorm has counted the batch once
        torch.testing.assert_close(one, two)


def test_a_smaller_batch_is_not_compiled(traced, monkeypatch):
    method = build_method("cs-kd")
    _, step = made(method)
    batch = batch_of(method)
    step.compile(batch)
    used = []
    monkeypatch.setattr(step, "_compiled", lambda *arguments: used.append(len(arguments[1])))
    smaller = Batch(
        {view: x[:4] for view, x in batch.views.items()}, batch.labels[:4], batch.targets[:4], batch.num_classes
    )
    step(smaller)
    assert used == []
    step(batch)
    assert used == [6]


def test_a_compiler_that_fails_leaves_the_network_as_it_was(monkeypatch):
    method = build_method("cs-kd")
    model, step = made(method)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def broken(function, **options):
        def call(*arguments):
            function(*arguments)  # BatchNorm's statistics have moved
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(RuntimeError, match="no compiler"):
        step.compile(batch_of(method))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    step(batch_of(method))  # goes on without


@pytest.mark.parametrize("fails", [1, 2, 3, None])
def test_cuda_graphs_are_made_and_replayed_before_the_training_begins(monkeypatch, fails):
    """torch makes them in the second call, and replays them from the third on: what fails there fails in time."""
    method, calls = build_method("cs-kd"), []
    model, step = made(method)
    step.device = torch.device("cuda")
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def graphs(function, **options):
        def call(*arguments):
            calls.append(options["options"]["triton.cudagraphs"])
            if len(calls) == fails:
                raise RuntimeError("not capturable")
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", graphs)
    with pytest.raises(RuntimeError, match="not capturable") if fails else contextlib.nullcontext():
        step.compile(batch_of(method))
    assert calls == [True] * (fails or 3)
    assert gradients(model) == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    step(batch_of(method))
    assert len(calls) == (fails or 4)  # goes on without what has failed


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_generated_code_agrees_with_torchs_kernels():
    method = build_method("cs-kd")
    batch = batch_of(method)
    model, step = made(method)
    step.compile(batch)
    loss, _ = step(batch)
    loss.backward()
    other, plain = made(method)
    expected, _ = plain(batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for one, two in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
