"""Mixup and KD against their formulas; pairs, random draws and the teacher."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from stepping import batch_of, float_images, forward_cache, model_for, step_loss, teacher_for
from torch.nn.functional import cross_entropy

from cskd.batch import Batch
from cskd.methods import build_method
from cskd.methods.mixup import draw_coefficient, mix

ORDER = torch.tensor([1, 2, 0, 5, 3, 4])


@pytest.mark.parametrize("alpha", [0.2, 3.0])
def test_mixup_coefficient_has_the_beta_distribution(alpha):
    random = torch.Generator().manual_seed(0)
    draws = [draw_coefficient(alpha, random) for _ in range(2000)]
    assert kstest(draws, beta(alpha, alpha).cdf).pvalue > 0.001


def test_mixup_coefficient_depends_on_the_generator_only():
    first, second = (draw_coefficient(0.01, torch.Generator().manual_seed(7)) for _ in range(2))
    assert first == second


def test_mix_uses_the_same_pairs_for_all_views_and_labels():
    batch = batch_of(build_method("mixup+cs-kd"))
    mixed = mix(batch, ORDER, 0.3)
    for view in ("x", "partner"):
        images = batch.views[view].numpy().astype(float)
        np.testing.assert_allclose(mixed.views[view], 0.3 * images + 0.7 * images[ORDER], rtol=1e-5)
    one_hot = np.eye(3)[batch.labels]
    np.testing.assert_allclose(mixed.targets, 0.3 * one_hot + 0.7 * one_hot[ORDER], rtol=1e-6)
    assert torch.equal(mixed.labels, batch.labels)


def test_partner_of_a_mixed_image_is_mixed_from_the_same_two_classes():
    """Every pixel is the image's class, so the mixed partner must equal the mixed image."""
    labels = torch.arange(8) % 4
    images = (50 * labels).to(torch.uint8)[:, None, None, None].expand(8, 3, 4, 4)
    batch = Batch({"x": images, "partner": images}, labels, labels, 4)
    mixed = build_method("mixup+cs-kd").transform(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(mixed.views["x"], mixed.views["partner"])
    assert not torch.equal(mixed.views["x"], images.float())


@pytest.mark.parametrize("coefficient", [1.0, 0.3])
def test_loss_of_mixed_labels_is_the_mixed_cross_entropy(coefficient):
    plain = build_method("cross-entropy")
    model, batch = model_for(plain).eval(), batch_of(plain)
    mixed = mix(batch, ORDER, coefficient)
    logits = model(float_images(mixed.views["x"]))
    expected = coefficient * cross_entropy(logits, batch.labels)
    expected = expected + (1 - coefficient) * cross_entropy(logits, batch.labels[ORDER])
    torch.testing.assert_close(step_loss(plain, model, mixed), expected)


@pytest.mark.parametrize("name", ["kd", "kd+cs-kd"])
def test_teacher_does_not_change_and_runs_once_per_step(name):
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
