"""Mixup against its formula and distribution; draws for a GPU; the teacher of KD."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from stepping import batch_of, float_images, forward_cache, model_for, step_loss, teacher_for
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from cskd.batch import Batch
from cskd.methods import build_method, mixup
from cskd.methods.mixup import draw_coefficient, mix

ORDER = torch.tensor([1, 2, 0, 5, 3, 4])


@pytest.mark.parametrize("alpha", [0.2, 3.0])
def test_mixup_coefficient_has_the_beta_distribution(alpha):
    random = torch.Generator().manual_seed(0)
    draws = [draw_coefficient(alpha, random) for _ in range(1000)]
    assert kstest(draws, beta(alpha, alpha).cdf).pvalue > 0.001


def test_mix_uses_the_same_pairs_for_all_views_and_labels():
    """So the partner of a mixed image is mixed from the same two classes."""
    batch = batch_of(build_method("mixup+cs-kd"))
    mixed = mix(batch, ORDER, 0.3)
    for view in ("x", "partner"):
        images = batch.views[view].numpy().astype(float)
        np.testing.assert_allclose(mixed.views[view], 0.3 * images + 0.7 * images[ORDER], rtol=1e-5)
    one_hot = np.eye(3)[batch.labels]
    np.testing.assert_allclose(mixed.targets, 0.3 * one_hot + 0.7 * one_hot[ORDER], rtol=1e-6)


@pytest.mark.parametrize("method", ["mixup", "permuted-partner"])
@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_draws_are_copied_to_a_gpu_from_pinned_memory(monkeypatch, method, device, pinned):
    """From other memory, the copy could make the step wait for the device."""
    options = []
    monkeypatch.setattr(mixup, "draw_coefficient", lambda alpha, random: 0.5)
    for name, draw in (("rand", torch.rand), ("randperm", torch.randperm)):

        def recorded(*sizes, generator, pin_memory, draw=draw):
            options.append(pin_memory)
            return draw(*sizes)

        monkeypatch.setattr(torch, name, recorded)
    with FakeTensorMode(allow_non_fake_inputs=True):
        labels = torch.zeros(6, dtype=torch.long, device=device)
        build_method(method).transform(Batch({}, labels, labels, 3), torch.Generator())
    assert options == [pinned]


def test_loss_of_mixed_labels_is_the_mixed_cross_entropy():
    plain = build_method("cross-entropy")
    model, batch = model_for(plain).eval(), batch_of(plain)
    mixed = mix(batch, ORDER, 0.3)
    logits = model(float_images(mixed.views["x"]))
    expected = 0.3 * cross_entropy(logits, batch.labels) + 0.7 * cross_entropy(logits, batch.labels[ORDER])
    torch.testing.assert_close(step_loss(plain, model, mixed), expected)


def test_teacher_runs_once_per_step_and_receives_no_gradient():
    method = build_method("kd+cs-kd")
    model, batch, teacher = model_for(method).train(), batch_of(method), teacher_for(method)
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    cache = forward_cache(method, model, batch, teacher.requires_grad_(True))
    sum(term.weight * term.loss(cache) for term in method.terms()).backward()
    assert cache.teacher_logits("x") is cache.teacher_logits("x")
    assert len(calls) == 1
    assert all(parameter.grad is None for parameter in teacher.parameters())
