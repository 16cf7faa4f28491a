"""CS-KD-E, DDGSD and BYOT against their formulas, limits and gradients."""

import numpy as np
import pytest
import torch
from stepping import batch_of, float_images, model_for, forward_cache, step_loss

from cskd.losses import distillation_kl
from cskd.methods import build_method
from cskd.methods.byot import hint
from cskd.methods.ddgsd import mean_feature_distance, symmetric_kl


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def numpy_kl(target: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    """KL(target || logits) of the softened predictions, mean over the batch."""
    q, p = softmax(target / temperature), softmax(logits / temperature)
    return (q * np.log(q / p)).sum(axis=1).mean()


# CS-KD-E


def test_cs_kd_e_is_cs_kd_and_the_clean_views_kl():
    method = build_method("cs-kd-e", {"temperature": 2.0, "lambda_cls": 3.0, "lambda_e": 0.5})
    model, batch = model_for(method).eval(), batch_of(method)
    x, partner, clean = (model(float_images(batch.views[view])).detach().double() for view in ("x", "partner", "clean"))
    cross_entropy = torch.nn.functional.cross_entropy(x, batch.labels).item()
    expected = cross_entropy + 4 * (
        3.0 * numpy_kl(partner.numpy(), x.numpy(), 2.0) + 0.5 * numpy_kl(clean.numpy(), x.numpy(), 2.0)
    )
    assert step_loss(method, model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_cs_kd_e_without_its_weight_is_cs_kd_exactly():
    ours, plain = build_method("cs-kd-e", {"lambda_e": 0.0}), build_method("cs-kd")
    model, batch = model_for(ours).eval(), batch_of(ours)
    assert step_loss(ours, model, batch).item() == step_loss(plain, model, batch).item()


def test_only_the_augmented_view_learns():
    """The gradient is that of constant targets."""
    method = build_method("cs-kd-e")
    model, batch = model_for(method).eval(), batch_of(method)
    step_loss(method, model, batch).backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    x = model(float_images(batch.views["x"]))
    with torch.no_grad():
        partner, clean = (model(float_images(batch.views[view])) for view in ("partner", "clean"))
    loss = torch.nn.functional.cross_entropy(x, batch.labels)
    (loss + distillation_kl(x, partner, 4.0) + distillation_kl(x, clean, 4.0)).backward()
    for grad, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


# DDGSD


def test_symmetric_kl_is_both_directions_and_zero_where_they_agree():
    one, other = doubles(5, 7), doubles(5, 7, seed=1)
    both = numpy_kl(one.numpy(), other.numpy(), 3.0) + numpy_kl(other.numpy(), one.numpy(), 3.0)
    assert symmetric_kl(one, other, 3.0).item() == pytest.approx(9 * both)
    assert symmetric_kl(one, other, 3.0).item() == pytest.approx(symmetric_kl(other, one, 3.0).item())
    assert symmetric_kl(one, one, 3.0).item() == 0
    leaves = (one.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: symmetric_kl(a, b, 3.0), leaves)


def test_mean_feature_distance_is_that_of_the_batch_means():
    one, other = doubles(6, 4), doubles(6, 4, seed=1)
    expected = ((one.numpy().mean(0) - other.numpy().mean(0)) ** 2).sum()
    assert mean_feature_distance(one, other).item() == pytest.approx(expected)
    assert mean_feature_distance(one, one[torch.randperm(6)]).item() == pytest.approx(0, abs=1e-12)
    leaves = (one.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(mean_feature_distance, leaves)


def test_ddgsd_of_two_equal_views_is_twice_the_cross_entropy():
    method, plain = build_method("ddgsd"), build_method("cross-entropy")
    model, batch = model_for(method).eval(), batch_of(method)
    batch.views["second"] = batch.views["x"]
    assert step_loss(method, model, batch).item() == pytest.approx(2 * step_loss(plain, model, batch).item(), rel=1e-6)


def test_both_views_of_ddgsd_learn():
    method = build_method("ddgsd")
    cache = forward_cache(method, model_for(method), batch_of(method))
    terms = {term.name: term for term in method.terms()}
    both = [cache.logits("x"), cache.logits("second")]
    gradients = torch.autograd.grad(terms["symmetric_kl"].loss(cache), both)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


# BYOT


def test_hint_is_the_squared_distance_to_a_constant():
    features, target = doubles(5, 4).requires_grad_(), doubles(5, 4, seed=1).requires_grad_()
    loss = hint(features, target)
    expected = ((features.detach().numpy() - target.detach().numpy()) ** 2).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert target.grad is None
    torch.testing.assert_close(features.grad, 2 * (features - target).detach() / 5)


def test_byot_is_its_formula_over_the_shallow_classifiers():
    method = build_method("byot", {"temperature": 2.0, "alpha": 0.4, "lambda_hint": 0.05})
    model, batch = model_for(method).eval(), batch_of(method)
    maps = model.backbone.stage_maps(float_images(batch.views["x"]))
    deep_features = model.backbone.pool(maps[-1]).detach().double().numpy()
    deep = model(float_images(batch.views["x"])).detach().double()
    expected = torch.nn.functional.cross_entropy(deep, batch.labels).item()
    for classifier, feature_map in zip(model.auxiliary, maps[:-1], strict=True):
        features, logits = (values.detach().double() for values in classifier(feature_map))
        expected += 0.6 * torch.nn.functional.cross_entropy(logits, batch.labels).item()
        expected += 0.4 * numpy_kl(deep.numpy(), logits.numpy(), 2.0)
        expected += 0.05 * ((features.numpy() - deep_features) ** 2).sum(axis=1).mean()
    assert len(model.auxiliary) == 3
    assert step_loss(method, model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_byot_without_its_terms_is_the_shallow_and_the_deepest_cross_entropy():
    method = build_method("byot", {"alpha": 0.0, "lambda_hint": 0.0})
    model, batch = model_for(method).eval(), batch_of(method)
    cache = forward_cache(method, model, batch)
    expected = sum(
        torch.nn.functional.cross_entropy(logits, batch.labels)
        for logits in [cache.logits("x"), *(logits for _, logits in cache.auxiliary("x"))]
    )
    torch.testing.assert_close(step_loss(method, model, batch), expected)


def test_the_shallow_classifiers_are_tested_nowhere_and_cost_the_test_nothing():
    method, plain = build_method("byot"), build_method("cross-entropy")
    images = torch.randn(2, 3, 32, 32)
    ours, bare = model_for(method).eval(), model_for(plain).eval()
    torch.testing.assert_close(ours(images), bare(images), rtol=0, atol=0)  # the same seed, the same weights
    calls = []
    ours.auxiliary.register_forward_hook(lambda *_: calls.append(1))
    ours(images)
    assert not calls


def test_no_gradient_reaches_the_deepest_classifier_from_its_pupils():
    method = build_method("byot", {"alpha": 1.0})
    model, batch = model_for(method).eval(), batch_of(method)
    cache = forward_cache(method, model, batch)
    terms = {term.name: term for term in method.terms()}
    (terms["shallow_kl"].loss(cache) + terms["hint"].loss(cache)).backward()
    assert model.head.weight.grad is None
    assert all(parameter.grad is None for parameter in model.backbone.stages[-1].parameters())
    assert model.backbone.conv1.weight.grad.abs().sum() > 0
