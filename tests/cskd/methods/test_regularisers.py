"""Label smoothing, maximum entropy, virtual softmax and AdaCos against their formulas and gradients."""

import math

import numpy as np
import pytest
import torch
from stepping import batch_of, doubles, forward_cache, model_for, step_loss

from cskd.methods import build_method
from cskd.methods.adacos import CosineHead, adaptive_scale
from cskd.methods.cross_entropy import negative_entropy
from cskd.methods.virtual_softmax import virtual_softmax_cross_entropy
from cskd.utils.errors import UserError


def test_label_smoothing_loss_is_its_formula():
    method = build_method("label-smoothing", {"epsilon": 0.3})
    model, batch = model_for(method).eval(), batch_of(method)
    logits = forward_cache(method, model, batch).logits("x").detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.full((6, 3), 0.3 / 3)
    targets[np.arange(6), batch.labels] += 0.7
    assert step_loss(method, model, batch).item() == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)


def test_negative_entropy_is_its_formula_from_uniform_to_certain():
    logits = doubles(5, 7)
    expected = -torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(negative_entropy(logits), expected)
    assert negative_entropy(torch.zeros(4, 10)).item() == pytest.approx(-math.log(10))
    assert negative_entropy(1e4 * torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(negative_entropy, logits.requires_grad_())


def test_virtual_softmax_is_a_softmax_with_one_more_class():
    features, weight, labels = doubles(5, 4), doubles(3, 4, seed=1), torch.tensor([0, 1, 2, 1, 0])
    loss = virtual_softmax_cross_entropy(features @ weight.T, features, weight, labels)
    w = weight.numpy()
    expected = []
    for row, label in zip(features.numpy(), labels, strict=True):
        virtual = np.linalg.norm(w[label]) * row / np.linalg.norm(row)  # the virtual class's weight
        logits = np.array([*(w @ row), virtual @ row])
        expected.append(np.log(np.exp(logits).sum()) - logits[label])
    assert loss.item() == pytest.approx(np.mean(expected))
    inputs = (features.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, w: virtual_softmax_cross_entropy(f @ w.T, f, w, labels), inputs)


@pytest.mark.parametrize("pull", [0.0, 3.0])  # the median angle is above pi/4, and below
def test_adacos_scale_is_the_papers_formula(pull):
    labels = torch.arange(7) % 4
    weight = doubles(4, 6)
    features = doubles(7, 6, seed=1) + pull * weight[labels]
    cosines = torch.nn.functional.cosine_similarity(features[:, None], weight[None], dim=2)
    scale = adaptive_scale(cosines, labels, torch.tensor(2.5, dtype=torch.float64)).item()
    true = np.eye(4, dtype=bool)[labels]
    wrong = np.where(true, 0, np.exp(2.5 * cosines.numpy())).sum(1).mean()
    median = np.median(np.arccos(cosines.numpy()[true]))  # of seven angles
    assert scale == pytest.approx(math.log(wrong) / math.cos(min(math.pi / 4, median)))


def test_adacos_scale_of_confident_predictions_is_exact_in_single_precision():
    """All cosines to the true class are 1, all others -0.9: the sum over the wrong classes is 3 exp(-0.9 s)."""
    labels = torch.arange(8) % 4
    cosines = torch.full((8, 4), -0.9).scatter(1, labels[:, None], 1.0)
    assert adaptive_scale(cosines, labels, torch.tensor(1000.0)).item() == pytest.approx(math.log(3) - 900, rel=1e-6)


def test_cosine_head_returns_unscaled_float32_cosines_under_autocast():
    torch.manual_seed(0)
    head, features = CosineHead(8, 5), torch.randn(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = head(features)
    expected = torch.nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(cosines, expected)
    with pytest.raises(UserError, match="adacos needs 3 classes or more, not 2"):
        CosineHead(8, 2)


def test_adacos_updates_its_scale_in_training_only():
    method = build_method("adacos")
    model, batch = model_for(method), batch_of(method)
    first = model.head.scale.clone()
    assert first.item() == pytest.approx(math.sqrt(2) * math.log(2))
    cosines = forward_cache(method, model, batch).logits("x")
    loss = step_loss(method, model, batch)
    scale = adaptive_scale(cosines.detach(), batch.labels, first)
    torch.testing.assert_close(model.head.scale, scale)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scale * cosines, batch.labels))
    step_loss(method, model.eval(), batch)
    torch.testing.assert_close(model.head.scale, scale)
