"""Label smoothing, maximum entropy, virtual softmax and AdaCos against their formulas, limits and gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from stepping import batch_of, model_for, forward_cache, step_loss

from cskd.methods import build_method
from cskd.methods.adacos import CosineHead, adaptive_scale
from cskd.methods.max_entropy import negative_entropy
from cskd.methods.virtual_softmax import virtual_softmax_cross_entropy
from cskd.utils.errors import UserError


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


# label smoothing


def test_label_smoothing_is_its_formula():
    method = build_method("label-smoothing", {"epsilon": 0.3})
    model = model_for(method).eval()
    batch = batch_of(method)
    log_p = log_softmax(forward_cache(method, model, batch).logits("x").detach().double().numpy())
    targets = np.full((6, 3), 0.3 / 3)
    targets[np.arange(6), batch.labels] += 0.7
    assert step_loss(method, model, batch).item() == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)


def test_label_smoothing_of_zero_is_cross_entropy_exactly():
    plain, ours = build_method("cross-entropy"), build_method("label-smoothing", {"epsilon": 0.0})
    model, batch = model_for(plain).eval(), batch_of(plain)
    assert step_loss(ours, model, batch).item() == step_loss(plain, model, batch).item()


# maximum entropy


def test_negative_entropy_is_minus_the_entropy_from_uniform_to_certain():
    logits = doubles(5, 7)
    expected = -torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(negative_entropy(logits), expected)
    assert negative_entropy(torch.zeros(4, 10)).item() == pytest.approx(-math.log(10))
    assert negative_entropy(1e4 * torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(negative_entropy, logits.requires_grad_())


def optimal_confidence(classes: int, beta: float) -> float:
    """The confidence p that minimises -log p - beta * H(p, rest spread evenly): where the derivative is zero."""

    def slope(p: float) -> float:
        return -1 / p + beta * math.log(p * (classes - 1) / (1 - p))

    return brentq(slope, 1e-6, 1 - 1e-9)


@pytest.mark.parametrize(("classes", "message"), [(100, 0.276), (200, 0.241)])
def test_a_perfectly_fitted_sample_of_max_entropy_ends_where_its_optimum_is(classes, message):
    method = build_method("max-entropy", {"beta": 1.0})
    logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -logits.log_softmax(1)[0, 0] + method.beta * negative_entropy(logits)
        loss.backward()
        return loss

    optimizer.step(closure)
    confidence = logits.softmax(1)[0, 0].item()
    assert confidence == pytest.approx(optimal_confidence(classes, 1.0), abs=1e-4)
    assert confidence == pytest.approx(message, abs=0.0005)


@pytest.mark.parametrize(("name", "weight"), [("max-entropy", "beta"), ("cs-kd", "lambda_cls"), ("kd", "lambda_kd")])
def test_a_weight_of_zero_is_cross_entropy_exactly(name, weight):
    plain, ours = build_method("cross-entropy"), build_method(name, {weight: 0.0})
    model = model_for(plain).eval()
    batch = batch_of(ours)
    assert step_loss(ours, model, batch).item() == step_loss(plain, model, batch).item()


# virtual softmax


def test_virtual_softmax_is_a_softmax_over_one_more_class():
    features, weight, labels = doubles(5, 4), doubles(3, 4, seed=1), torch.tensor([0, 1, 2, 1, 0])
    ours = virtual_softmax_cross_entropy(features @ weight.T, features, weight, labels)
    f, w = features.numpy(), weight.numpy()
    losses = []
    for row, label in zip(f, labels, strict=True):
        virtual = np.linalg.norm(w[label]) * row / np.linalg.norm(row)  # the class's weight
        logits = np.array([*(w @ row), virtual @ row])
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
    assert ours.item() == pytest.approx(np.mean(losses))


def test_virtual_softmax_passes_gradcheck_in_features_and_weight():
    features, weight = doubles(4, 5).requires_grad_(), doubles(3, 5, seed=1).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0])
    assert torch.autograd.gradcheck(
        lambda f, w: virtual_softmax_cross_entropy(f @ w.T, f, w, labels), (features, weight)
    )


def test_virtual_softmax_never_falls_below_ln_2():
    """The virtual logit is at least the true one: the true class gets half at most, and that when they are aligned."""
    weight = torch.eye(3, dtype=torch.float64)
    features = 1e3 * weight
    loss = virtual_softmax_cross_entropy(features @ weight.T, features, weight, torch.arange(3))
    assert loss.item() == pytest.approx(math.log(2))


def test_virtual_softmax_has_a_head_without_bias_and_is_tested_on_the_classes_alone():
    model = model_for(build_method("virtual-softmax"))
    assert model.head.bias is None
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)


# AdaCos


def numpy_scale(cosines: np.ndarray, labels: np.ndarray, scale: float) -> float:
    rows = np.arange(len(labels))
    wrong = [
        sum(math.exp(scale * c) for k, c in enumerate(row) if k != y) for row, y in zip(cosines, labels, strict=True)
    ]
    angles = sorted(math.acos(c) for c in cosines[rows, labels])
    median = angles[(len(angles) - 1) // 2]
    return math.log(np.mean(wrong)) / math.cos(min(math.pi / 4, median))


@pytest.mark.parametrize("near", [0.0, 3.0])  # the median angle beyond pi/4, and within
def test_the_scale_is_the_papers_formula(near):
    labels = torch.arange(7) % 4
    weight = doubles(4, 6)
    features = doubles(7, 6, seed=1) + near * weight[labels]
    cosines = torch.nn.functional.cosine_similarity(features[:, None], weight[None], dim=2)
    ours = adaptive_scale(cosines, labels, torch.tensor(2.5, dtype=torch.float64)).item()
    assert ours == pytest.approx(numpy_scale(cosines.numpy(), labels.numpy(), 2.5))


def test_the_head_gives_unscaled_cosines_also_under_autocast():
    torch.manual_seed(0)
    head = CosineHead(8, 5)
    features = torch.randn(6, 8)
    expected = torch.nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(features).dtype == torch.float32
        torch.testing.assert_close(head(features), expected)


def test_adacos_learns_scaled_cosines_with_the_scale_of_this_batch():
    method = build_method("adacos")
    model, batch = model_for(method), batch_of(method)
    assert model.head.scale.item() == pytest.approx(math.sqrt(2) * math.log(2))
    cache = forward_cache(method, model, batch)
    cosines = cache.logits("x")
    expected_scale = numpy_scale(cosines.detach().double().numpy(), batch.labels.numpy(), model.head.scale.item())
    loss = method.classification().loss(cache)
    assert model.head.scale.item() == pytest.approx(expected_scale, rel=1e-5)
    expected = torch.nn.functional.cross_entropy(expected_scale * cosines, batch.labels)
    torch.testing.assert_close(loss, expected)
    assert "head.scale" in model.state_dict()


def test_the_scale_does_not_move_when_the_network_is_evaluated():
    method = build_method("adacos")
    model, batch = model_for(method).eval(), batch_of(method)
    before = model.head.scale.clone()
    step_loss(method, model, batch)
    assert torch.equal(model.head.scale, before)


def test_adacos_of_two_classes_is_refused():
    with pytest.raises(UserError, match="adacos needs 3 classes or more, not 2"):
        build_method("adacos").build_head(8, 2)
