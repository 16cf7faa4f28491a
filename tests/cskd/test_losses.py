"""The shared losses against their formulas in NumPy, their limits and their gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.losses import class_wise_kl, cross_entropy


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def numpy_class_wise_kl(logits, partner_logits, temperature):
    """Return T^2 * sum_k q_k log(q_k / p_k), mean over the batch, as in the paper's equation."""
    p, q = softmax(logits / temperature), softmax(partner_logits / temperature)
    return temperature**2 * (q * np.log(q / p)).sum(1).mean()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.3, 20), scale=st.floats(0.01, 8))
def test_class_wise_kl_is_the_papers_formula(seed, temperature, scale):
    logits, partner = scale * np.random.default_rng(seed).normal(size=(2, 6, 9))
    double = class_wise_kl(torch.tensor(logits), torch.tensor(partner), temperature).item()
    assert double == pytest.approx(numpy_class_wise_kl(logits, partner, temperature), rel=1e-8, abs=1e-10)
    single = class_wise_kl(torch.tensor(logits).float(), torch.tensor(partner).float(), temperature).item()
    assert single == pytest.approx(double, rel=1e-3, abs=1e-6 * temperature**2)


def test_class_wise_kl_has_the_formulas_gradient_and_none_for_the_partner():
    """d/dz of T^2 KL(q || p) is T (p - q) / N."""
    logits, partner = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits.requires_grad_()
    partner.requires_grad_()
    class_wise_kl(logits, partner, 3.0).backward()
    p, q = (logits / 3).softmax(1), (partner / 3).softmax(1)
    torch.testing.assert_close(logits.grad, (3 * (p - q) / 5).detach())
    assert partner.grad is None


def test_class_wise_kl_of_equal_predictions_is_zero_with_zero_gradient():
    logits = torch.randn(4, 6, requires_grad=True)
    loss = class_wise_kl(logits, logits, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


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


def test_cross_entropy_is_its_formula_for_labels_and_probabilities():
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(6, 4)), random.integers(4, size=6)
    expected = -np.log(softmax(logits))[np.arange(6), labels].mean()
    assert cross_entropy(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-6)
    soft = torch.nn.functional.one_hot(torch.tensor(labels), 4).double()
    assert cross_entropy(torch.tensor(logits), soft).item() == pytest.approx(expected, rel=1e-6)
