"""The shared losses against their formulas in NumPy, their limits and their gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.losses import ClassWiseKL, CSKDLoss, class_wise_kl, cross_entropy


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.3, 20), scale=st.floats(0.01, 8))
def test_class_wise_kl_is_the_papers_formula_with_its_gradient_and_none_for_the_partner(seed, temperature, scale):
    """T^2 * sum_k q_k log(q_k / p_k), mean over the batch. Its gradient is T (p - q) / N."""
    logits, partner = scale * np.random.default_rng(seed).normal(size=(2, 6, 9))
    p, q = softmax(logits / temperature), softmax(partner / temperature)
    z, target = torch.tensor(logits, requires_grad=True), torch.tensor(partner, requires_grad=True)
    loss = class_wise_kl(z, target, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(temperature**2 * (q * np.log(q / p)).sum(1).mean(), rel=1e-8, abs=1e-10)
    np.testing.assert_allclose(z.grad, temperature * (p - q) / 6, atol=1e-12)
    assert target.grad is None
    single = class_wise_kl(z.float(), target.float(), temperature).item()
    assert single == pytest.approx(loss.item(), rel=1e-3, abs=1e-6 * temperature**2)


def test_class_wise_kl_of_confident_predictions_is_finite():
    logits = torch.tensor([[300.0, -300.0], [-300.0, 300.0]], requires_grad=True)
    loss = class_wise_kl(logits, -logits, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(600)
    assert torch.isfinite(logits.grad).all()


def test_class_wise_kl_of_half_precision_is_computed_in_float32():
    logits, partner = torch.randn(2, 8, 10).bfloat16()
    half = class_wise_kl(logits, partner, 4.0)
    assert half.dtype == torch.float32
    assert half.item() == class_wise_kl(logits.float(), partner.float(), 4.0).item()


@pytest.mark.parametrize(("temperature", "rows", "message"), [(0, 2, "temperature"), (1.0, 1, r"\(2, 3\)")])
def test_class_wise_kl_rejects_invalid_input(temperature, rows, message):
    with pytest.raises(ValueError, match=message):
        class_wise_kl(torch.zeros(2, 3), torch.zeros(rows, 3), temperature)


@pytest.mark.parametrize(
    ("loss", "values", "message"),
    [(ClassWiseKL, [0], "temperature"), (CSKDLoss, [np.nan, 1], "temperature"), (CSKDLoss, [4, -1], "lambda_cls")],
)
def test_loss_modules_reject_invalid_values_when_they_are_built(loss, values, message):
    with pytest.raises(ValueError, match=message):
        loss(*values)


def test_loss_modules_print_their_values():
    assert repr(ClassWiseKL(4)) == "ClassWiseKL(temperature=4)"
    assert repr(CSKDLoss(4, 0.5)) == "CSKDLoss(temperature=4, lambda_cls=0.5)"


@pytest.mark.parametrize("model", [lambda x: (x, None), lambda x: [x], lambda x: {"out": x}])
def test_cskd_loss_names_the_output_it_needs(model):
    x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(TypeError, match="tensor of logits"):
        CSKDLoss(4, 1)(model, x, x, y)


def test_cross_entropy_is_its_formula_for_labels_and_probabilities():
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(6, 4)), random.integers(4, size=6)
    expected = -np.log(softmax(logits))[np.arange(6), labels].mean()
    soft = torch.nn.functional.one_hot(torch.tensor(labels), 4).double()
    for targets in (torch.tensor(labels), soft):
        assert cross_entropy(torch.tensor(logits), targets).item() == pytest.approx(expected, rel=1e-6)
