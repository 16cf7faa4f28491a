"""Mixup and KD: what is mixed with what, who teaches whom, limits."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from stepping import batch_of, float_images, model_for, forward_cache, step_loss, teacher_for

from cskd.data.loader import Batch
from cskd.methods import build_method
from cskd.methods.mixup import draw_coefficient, mix


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_coefficient_has_the_beta_distribution(alpha):
    random = torch.Generator().manual_seed(0)
    draws = [draw_coefficient(alpha, random) for _ in range(2000)]
    assert kstest(draws, beta(alpha, alpha).cdf).pvalue > 0.001


def test_the_coefficient_comes_from_the_generator_alone():
    one, two = (draw_coefficient(0.01, torch.Generator().manual_seed(7)) for _ in range(2))
    assert one == two
    assert math.isfinite(one)


def test_images_and_labels_are_mixed_in_the_same_pairs():
    method = build_method("mixup+cs-kd")
    batch = batch_of(method)
    order = torch.tensor([1, 2, 0, 5, 3, 4])
    mixed = mix(batch, order, 0.3)
    for view in ("x", "partner"):
        images = batch.views[view].numpy().astype(float)
        np.testing.assert_allclose(mixed.views[view], 0.3 * images + 0.7 * images[order], rtol=1e-5)
    for row, other in enumerate(order):
        expected = np.zeros(3)
        expected[batch.labels[row]] += 0.3
        expected[batch.labels[other]] += 0.7
        np.testing.assert_allclose(mixed.targets[row], expected, rtol=1e-6)
    assert torch.equal(mixed.labels, batch.labels)


def test_the_partner_of_a_mixed_image_is_mixed_from_the_same_two_classes():
    """Images whose every pixel is their class: the mixed partner must be the mixed image."""
    labels = torch.arange(8) % 4
    images = (50 * labels).to(torch.uint8)[:, None, None, None].expand(8, 3, 4, 4)
    batch = Batch({"x": images, "partner": images}, labels, labels, 4)
    mixed = build_method("mixup+cs-kd").transform(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(mixed.views["x"], mixed.views["partner"])
    assert not torch.equal(mixed.views["x"], images.float())


def test_a_coefficient_of_one_is_no_mixup():
    plain = build_method("cross-entropy")
    model, batch = model_for(plain).eval(), batch_of(plain)
    mixed = mix(batch, torch.randperm(6), 1.0)
    assert torch.equal(mixed.views["x"], batch.views["x"].float())
    torch.testing.assert_close(step_loss(plain, model, mixed), step_loss(plain, model, batch))


def test_mixed_labels_are_the_mixed_cross_entropies():
    plain = build_method("cross-entropy")
    model, batch = model_for(plain).eval(), batch_of(plain)
    order = torch.tensor([1, 2, 0, 5, 3, 4])
    mixed = mix(batch, order, 0.3)
    logits = model(float_images(mixed.views["x"]))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = 0.3 * cross_entropy(logits, batch.labels) + 0.7 * cross_entropy(logits, batch.labels[order])
    torch.testing.assert_close(step_loss(plain, model, mixed), expected)


def test_the_kd_loss_is_the_softened_kl_to_the_teacher():
    method, plain = build_method("kd", {"temperature": 3.0, "lambda_kd": 0.5}), build_method("cross-entropy")
    model, batch, teacher = model_for(method).eval(), batch_of(method), teacher_for(method)
    images = float_images(batch.views["x"])
    q, p = (network(images).detach().double().div(3).softmax(1).numpy() for network in (teacher, model))
    expected = step_loss(plain, model, batch).item() + 0.5 * 9 * (q * np.log(q / p)).sum(1).mean()
    assert step_loss(method, model, batch, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_equal_to_its_teacher_has_no_kd_loss():
    method = build_method("kd")
    model, batch = model_for(method).eval(), batch_of(method)
    cache = forward_cache(method, model, batch, teacher=model_for(method).eval())
    (term,) = method.regularisers()
    loss = term.loss(cache)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in model.parameters())


@pytest.mark.parametrize("name", ["kd", "kd+cs-kd"])
def test_nothing_of_the_teacher_changes_and_its_pass_is_made_once(name):
    method = build_method(name)
    model, batch, teacher = model_for(method).train(), batch_of(method), teacher_for(method)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    cache = forward_cache(method, model, batch, teacher)
    sum(term.weight * term.loss(cache) for term in method.terms()).backward()
    assert cache.teacher_logits("x") is cache.teacher_logits("x")
    assert len(calls) == 1
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
