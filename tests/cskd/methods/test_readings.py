"""DDGSD, BYOT and KD in all readings: losses and gradients against formulas in NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stepping import doubles

from cskd.methods import Method, build_method
from cskd.utils.errors import UserError

ROWS, CLASSES, FEATURES = 5, 7, 4
LABELS = torch.tensor([3, 0, 6, 1, 3])
ONE_HOT = np.eye(CLASSES)[LABELS]


def loss_and_gradients(method: Method, leaves: dict[str, torch.Tensor], **cache) -> tuple[float, dict[str, np.ndarray]]:
    """Return the loss, and its gradient by leaf. cache: what the terms read from the ForwardCache."""
    for leaf in leaves.values():
        leaf.requires_grad_()
    cache = SimpleNamespace(batch=SimpleNamespace(targets=LABELS), **cache)
    loss = sum(term.weight * term.loss(cache) for term in method.terms())
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return loss.item(), {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray) -> float:
    return -(ONE_HOT * np.log(softmax(logits))).sum(axis=1).mean()


def kl(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (q * np.log(q / p)).sum(axis=1, keepdims=True)


READINGS = ("t_squared", "detach_targets", "mean_over_classes", "halve_cross_entropy")


@pytest.mark.parametrize("changed", [(), *((reading,) for reading in READINGS), READINGS])
def test_ddgsd_has_the_loss_and_gradient_of_its_reading(changed):
    defaults = dict(zip(READINGS, (True, False, False, False), strict=True))
    chosen = {reading: default != (reading in changed) for reading, default in defaults.items()}
    temperature, weight, mu = 2.0, 0.7, 0.3
    method = build_method("ddgsd", {"temperature": temperature, "lambda_kl": weight, "mu": mu, **chosen})
    logits = {view: 2 * doubles(ROWS, CLASSES, seed=seed) for seed, view in enumerate(("x", "second"))}
    features = {view: doubles(ROWS, FEATURES, seed=seed) for seed, view in enumerate(("x", "second"), start=2)}
    loss, gradients = loss_and_gradients(method, logits, logits=logits.get, features=features.get)

    x, second = (logits[view].detach().numpy() for view in ("x", "second"))
    share = 0.5 if chosen["halve_cross_entropy"] else 1.0
    scale = weight * (temperature**2 if chosen["t_squared"] else 1) / (CLASSES if chosen["mean_over_classes"] else 1)
    p, q = softmax(x / temperature), softmax(second / temperature)
    distance = ((features["x"].mean(0) - features["second"].mean(0)) ** 2).sum().item()
    expected = share * (cross_entropy(x) + cross_entropy(second)) + mu * distance + scale * (kl(p, q) + kl(q, p)).mean()
    assert loss == pytest.approx(expected)
    for view, z, own, other in (("x", x, p, q), ("second", second, q, p)):
        through_target = 0 if chosen["detach_targets"] else own * (np.log(own / other) - kl(own, other))
        gradient = share * (softmax(z) - ONE_HOT) + scale / temperature * (own - other + through_target)
        np.testing.assert_allclose(gradients[view], gradient / ROWS)


@pytest.mark.parametrize("squared", [True, False])
def test_byot_has_the_loss_and_gradient_of_its_reading(squared):
    temperature, alpha, weight = 2.0, 0.4, 0.05
    parameters = {"temperature": temperature, "alpha": alpha, "lambda_hint": weight, "squared_hint": squared}
    deep, deep_features = doubles(ROWS, CLASSES), doubles(ROWS, FEATURES, seed=1)
    leaves = {"logits": doubles(ROWS, CLASSES, seed=2), "features": doubles(ROWS, FEATURES, seed=3)}
    leaves |= {"deep": deep, "deep_features": deep_features}
    loss, gradients = loss_and_gradients(
        build_method("byot", parameters),
        leaves,
        logits=lambda view: deep,
        features=lambda view: deep_features,
        auxiliary=lambda view: [(leaves["features"], leaves["logits"])],
    )
    z, f, z_deep, f_deep = (leaf.detach().numpy() for leaf in (*list(leaves.values())[:2], deep, deep_features))
    p, q = softmax(z / temperature), softmax(z_deep / temperature)
    norm = np.sqrt(((f - f_deep) ** 2).sum())
    hint, hint_gradient = (norm**2 / ROWS, 2 * (f - f_deep) / ROWS) if squared else (norm, (f - f_deep) / norm)
    expected = cross_entropy(z_deep) + (1 - alpha) * cross_entropy(z) + alpha * kl(q, p).mean() + weight * hint
    assert loss == pytest.approx(expected)
    gradient = (1 - alpha) * (softmax(z) - ONE_HOT) + alpha / temperature * (p - q)
    np.testing.assert_allclose(gradients["logits"], gradient / ROWS)
    np.testing.assert_allclose(gradients["features"], weight * hint_gradient)
    np.testing.assert_allclose(gradients["deep"], (softmax(z_deep) - ONE_HOT) / ROWS)  # no gradient as a target
    assert not gradients["deep_features"].any()


@pytest.mark.parametrize("convex", [False, True])
def test_kd_has_the_loss_and_gradient_of_its_reading(convex):
    temperature, weight = 3.0, 0.4
    method = build_method("kd", {"temperature": temperature, "lambda_kd": weight, "convex": convex})
    logits, teacher = doubles(ROWS, CLASSES), doubles(ROWS, CLASSES, seed=1)
    loss, gradients = loss_and_gradients(
        method, {"x": logits}, logits=lambda view: logits, teacher_logits=lambda view: teacher
    )
    z, share = logits.detach().numpy(), 1 - weight if convex else 1
    p, q = softmax(z / temperature), softmax(teacher.numpy() / temperature)
    assert loss == pytest.approx(share * cross_entropy(z) + weight * temperature**2 * kl(q, p).mean())
    expected = share * (softmax(z) - ONE_HOT) + weight * temperature * (p - q)
    np.testing.assert_allclose(gradients["x"], expected / ROWS)


def test_default_readings_are_not_among_the_parameters_so_that_run_keys_stay():
    assert set(build_method("ddgsd", {"detach_targets": False}).parameters()) == {"temperature", "lambda_kl", "mu"}
    assert build_method("ddgsd", {"detach_targets": 1.0}).parameters()["detach_targets"] == 1
    assert build_method("kd+cs-kd", {"kd.convex": True}).parameters()["kd.convex"] == 1


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("byot", {"squared_hint": 2.0}, "byot: squared_hint must be true or false, not 2.0"),
        ("kd", {"convex": True, "lambda_kd": 1.5}, "kd: lambda_kd must be at most 1 if convex, not 1.5"),
        ("label-smoothing+kd", {"kd.convex": True}, "label-smoothing replaces the cross-entropy, but kd has several"),
    ],
)
def test_impossible_reading_is_an_error(name, parameters, message):
    with pytest.raises(UserError, match=message):
        build_method(name, parameters)
