"""A training step: its loss and sums, and captured graphs against eager code."""

import pytest
import torch
from stepping import CLASSES, batch_of, float_images, model_for, step_loss, teacher_for

from cskd.batch import Batch
from cskd.methods import build_method
from cskd.train.step import Step


def make_step(method):
    model = model_for(method).train()
    return model, Step(model, method, float_images, "fp32", torch.device("cpu"), teacher_for(method))


def state_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, state) -> None:
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def graphs_only(monkeypatch):
    """torch.compile without code generation, which takes minutes: it captures the graphs and runs them eagerly."""
    compile_ = torch.compile

    def compile_without_generator(function, **options):
        del options["options"]
        return compile_(function, backend="eager", **options)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", compile_without_generator)
    yield
    torch.compiler.reset()


def test_step_returns_loss_and_sums_of_terms_and_wrong_answers():
    method = build_method("cs-kd", {"temperature": 4, "lambda_cls": 2})
    batch = batch_of(method)
    _, step = make_step(method)
    loss, sums = step(batch)
    torch.testing.assert_close(loss, step_loss(method, model_for(method).train(), batch))
    assert (sums.dtype, sums.requires_grad) == (torch.float64, False)
    total, cross_entropy, class_wise, wrong = (sums / 6).tolist()
    assert total == pytest.approx(loss.item(), rel=1e-6)
    assert total == pytest.approx(cross_entropy + 2 * class_wise, rel=1e-6)
    logits = model_for(method).train()(float_images(batch.views["x"]))
    assert wrong == pytest.approx((logits.argmax(1) != batch.labels).double().mean().item())


@pytest.mark.parametrize("name", ["mixup+cs-kd", "byot", "adacos"])  # mixed labels, auxiliary heads, a head's buffer
def test_method_compiles_once_without_graph_breaks_to_the_same_step(name, graphs_only):
    method = build_method(name)
    batch = method.transform(batch_of(method), torch.Generator().manual_seed(5))
    model, step = make_step(method)
    before = state_of(model)
    blank = {view: torch.zeros_like(images) for view, images in batch.views.items()}
    step.compile(Batch(blank, batch.labels, batch.targets, CLASSES))
    assert_untouched(model, before)
    other, eager = make_step(method)
    with torch.compiler.set_stance("fail_on_recompile"):
        results = step(batch), eager(batch)
    torch.testing.assert_close(*results)
    for loss, _ in results:
        loss.backward()
    for actual, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(list(model.buffers()), list(other.buffers()))  # BatchNorm counted the batch once


def test_step_stays_eager_and_the_network_unchanged_if_it_cannot_be_compiled(monkeypatch):
    method = build_method("cs-kd")
    model, step = make_step(method)
    before = state_of(model)

    def failing(function, **options):
        def call(*arguments):
            function(*arguments)  # changes BatchNorm's statistics
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(RuntimeError, match="no compiler"):
        step.compile(batch_of(method))
    assert_untouched(model, before)
    assert torch.isfinite(step(batch_of(method))[0])
