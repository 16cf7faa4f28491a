"""Every registered method trains; names, hyper-parameters and combinations are validated."""

import pytest
import torch
from stepping import batch_of, forward_cache, model_for, step_loss

from cskd.methods import METHODS, PAPER_COMPOSITES, build_method, canonical_name, method_parts
from cskd.utils.errors import UserError


@pytest.mark.parametrize("name", [*METHODS, *PAPER_COMPOSITES])
def test_every_method_has_a_finite_loss_with_gradient_for_every_parameter(name):
    method = build_method(name)
    assert method.name == name
    assert method.source
    model = model_for(method)
    loss = step_loss(method, model, batch_of(method))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cs-kd", {"temperature": 0.0}, "cs-kd: temperature must be positive, not 0.0"),
        ("cs-kd", {"temperature": float("nan")}, "temperature must be positive"),
        ("cs-kd", {"lambda_cls": -0.1}, "lambda_cls must be zero or positive"),
        ("kd", {"lambda_kd": float("inf")}, "lambda_kd must be zero or positive"),
        ("label-smoothing", {"epsilon": 1.0}, "epsilon must be from 0 to below 1"),
        ("mixup", {"alpha": 0.0}, "alpha must be positive"),
        ("byot", {"alpha": 1.5}, "alpha must be from 0 to 1"),
        ("cs-kd", {"lambda": 1.0}, "no hyper-parameter 'lambda': it has temperature, lambda_cls"),
        ("mixup+cs-kd", {"temperature": 1.0}, "no hyper-parameter 'temperature': it has mixup.alpha, cs-kd.t"),
        ("mixup+cs-kd", {"cs-kd.temperature": 0.0}, "cs-kd: temperature must be positive"),
        ("mixup+cskd", {}, "unknown method 'cskd': did you mean cs-kd"),
        ("cs-kd+mixup", {}, r"method cs-kd\+mixup is written mixup\+cs-kd"),
        ("mixup+cs-kd+mixup", {}, r"method mixup\+cs-kd\+mixup: mixup is given twice"),
        ("mixup+adacos", {}, "adacos cannot be combined"),
        ("kd+pair-halves", {}, "pair-halves cannot be combined"),
        ("label-smoothing+ddgsd", {}, "label-smoothing replaces the cross-entropy, but ddgsd has several"),
        ("virtual-softmax+mixup", {}, "virtual-softmax needs one class per image, but mixup mixes classes"),
        ("mixup+class-mean", {}, "class-mean needs one class per image"),
        ("virtual-softmax+label-smoothing", {}, "both replace the cross-entropy"),
        ("byot+class-mean", {}, "both replace the auxiliary layers"),
        ("cs-kd+cs-kd-e", {}, "several methods add class_wise_kl"),
        ("cross-entropy+cs-kd", {}, "cross-entropy adds nothing"),
    ],
)
def test_build_method_raises_one_line_error_for_invalid_input(name, parameters, message):
    with pytest.raises(UserError, match=message) as caught:
        build_method(name, parameters)
    assert "\n" not in str(caught.value)


def test_composite_has_the_terms_views_and_parameters_of_its_parts():
    method = build_method("mixup+cs-kd", {"mixup.alpha": 0.3, "cs-kd.lambda_cls": 2.0})
    assert [term.name for term in method.terms()] == ["cross_entropy", "class_wise_kl"]
    assert method.parameters() == {"mixup.alpha": 0.3, "cs-kd.temperature": 4.0, "cs-kd.lambda_cls": 2.0}
    assert method.views == {"x", "partner"}
    assert canonical_name("cs-kd+mixup") == "mixup+cs-kd"


@pytest.mark.parametrize("name", ["kd+cs-kd", "label-smoothing+cs-kd", "byot+cs-kd", "virtual-softmax+cs-kd"])
def test_composite_loss_is_the_sum_without_a_second_cross_entropy(name):
    composite = build_method(name)
    first, second = (build_method(part) for part in method_parts(name))
    model = model_for(composite).eval()  # without batch statistics a forward pass can be repeated
    batch = batch_of(composite)
    shared = second.classification().loss(forward_cache(second, model, batch))
    expected = step_loss(first, model, batch) + step_loss(second, model, batch) - shared
    torch.testing.assert_close(step_loss(composite, model, batch), expected)
