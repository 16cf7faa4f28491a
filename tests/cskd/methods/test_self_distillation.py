"""CS-KD, CS-KD-E, DDGSD and BYOT against their formulas and gradients."""

import numpy as np
import pytest
import torch
from stepping import batch_of, doubles, float_images, model_for, step_loss
from torch.nn.functional import cross_entropy

from cskd.losses import class_wise_kl, distillation_kl
from cskd.methods import ForwardCache, build_method
from cskd.methods.ddgsd import mean_feature_distance


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def numpy_kl(target: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    """Return KL(target || logits) of the softened predictions, mean over the batch."""
    q, p = softmax(target / temperature), softmax(logits / temperature)
    return (q * np.log(q / p)).sum(axis=1).mean()


def gradients(model, loss: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(model.parameters()))


def test_cs_kd_e_loss_is_its_formula():
    method = build_method("cs-kd-e", {"temperature": 2.0, "lambda_cls": 3.0, "lambda_e": 0.5})
    model, batch = model_for(method).eval(), batch_of(method)
    x, partner, clean = (model(float_images(batch.views[view])).detach().double() for view in ("x", "partner", "clean"))
    expected = cross_entropy(x, batch.labels).item() + 4 * (
        3.0 * numpy_kl(partner.numpy(), x.numpy(), 2.0) + 0.5 * numpy_kl(clean.numpy(), x.numpy(), 2.0)
    )
    assert step_loss(method, model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_targets_of_cs_kd_and_cs_kd_e_receive_no_gradient():
    method = build_method("cs-kd-e", {"lambda_cls": 5.0})
    model, batch = model_for(method).eval(), batch_of(method)
    x = model(float_images(batch.views["x"]))
    with torch.no_grad():
        partner, clean = (model(float_images(batch.views[view])) for view in ("partner", "clean"))
    loss = cross_entropy(x, batch.labels) + 5.0 * class_wise_kl(x, partner, 4.0) + distillation_kl(x, clean, 4.0)
    torch.testing.assert_close(gradients(model, step_loss(method, model, batch)), gradients(model, loss))


def test_both_passes_of_cs_kd_are_computed_once_and_update_the_batch_statistics():
    method = build_method("cs-kd")
    model, batch = model_for(method).train(), batch_of(method)
    cache = ForwardCache(model, batch, float_images)
    logits, target = cache.logits("x"), cache.target_logits("partner")
    assert cache.logits("x") is logits
    assert cache.target_logits("partner") is target
    assert logits.requires_grad
    assert not target.requires_grad
    assert model.backbone.bn1.num_batches_tracked == 2

    fresh = model_for(method).train()
    with torch.no_grad():
        fresh(float_images(batch.views["x"]))
        fresh(float_images(batch.views["partner"]))
    torch.testing.assert_close(model.backbone.bn1.running_mean, fresh.backbone.bn1.running_mean)


def test_mean_feature_distance_is_the_distance_of_the_batch_means():
    first, second = doubles(6, 4), doubles(6, 4, seed=1)
    expected = ((first.numpy().mean(0) - second.numpy().mean(0)) ** 2).sum()
    assert mean_feature_distance(first, second).item() == pytest.approx(expected)
    inputs = (first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(mean_feature_distance, inputs)


def test_ddgsd_with_equal_views_is_twice_the_cross_entropy():
    method, plain = build_method("ddgsd"), build_method("cross-entropy")
    model, batch = model_for(method).eval(), batch_of(method)
    batch.views["second"] = batch.views["x"]
    assert step_loss(method, model, batch).item() == pytest.approx(2 * step_loss(plain, model, batch).item(), rel=1e-6)


def test_byot_loss_is_its_formula():
    method = build_method("byot", {"temperature": 2.0, "alpha": 0.4, "lambda_hint": 0.05})
    model, batch = model_for(method).eval(), batch_of(method)
    maps = model.backbone.stage_maps(float_images(batch.views["x"]))
    deep_features = model.backbone.pool(maps[-1]).detach().double().numpy()
    deep = model(float_images(batch.views["x"])).detach().double()
    expected = cross_entropy(deep, batch.labels).item()
    for classifier, feature_map in zip(model.auxiliary, maps[:-1], strict=True):
        features, logits = (values.detach().double() for values in classifier(feature_map))
        expected += 0.6 * cross_entropy(logits, batch.labels).item()
        expected += 0.4 * numpy_kl(deep.numpy(), logits.numpy(), 2.0)
        expected += 0.05 * ((features.numpy() - deep_features) ** 2).sum(axis=1).mean()
    assert len(model.auxiliary) == 3
    assert step_loss(method, model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_byot_evaluation_uses_the_deepest_classifier_only():
    method, plain = build_method("byot"), build_method("cross-entropy")
    images = torch.randn(2, 3, 32, 32)
    byot, bare = model_for(method).eval(), model_for(plain).eval()
    calls = []
    byot.auxiliary.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(byot(images), bare(images), rtol=0, atol=0)  # the same seed gives the same weights
    assert not calls
