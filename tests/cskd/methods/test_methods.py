"""What every method must be, found in the registry; CS-KD's own properties; and sums."""

import dataclasses

import pytest
import torch
from stepping import batch_of, float_images, model_for, forward_cache, step_loss

from cskd.losses import class_wise_kl
from cskd.methods import METHODS, PAPER_COMPOSITES, ForwardCache, build_method, method_parts
from cskd.utils.errors import UserError

EVERY = [*METHODS, *PAPER_COMPOSITES]


@pytest.mark.parametrize("name", EVERY)
def test_every_method_takes_a_step_and_a_gradient_reaches_every_parameter(name):
    method = build_method(name)
    model = model_for(method)
    loss = step_loss(method, model, batch_of(method))
    loss.backward()
    assert loss.dim() == 0
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_every_method_names_itself_and_its_source(name):
    method = build_method(name)
    assert method.name == name
    assert method.source
    names = [term.name for term in method.terms()]
    assert len(set(names)) == len(names)


def test_cs_kd_with_lambda_zero_is_cross_entropy():
    plain, ours = build_method("cross-entropy"), build_method("cs-kd", {"lambda_cls": 0.0})
    model = model_for(plain)
    batch = batch_of(ours)
    expected = step_loss(plain, model, batch)
    assert step_loss(ours, model, batch).item() == expected.item()


def test_cs_kd_is_cross_entropy_plus_lambda_times_the_class_wise_kl():
    method = build_method("cs-kd", {"temperature": 3.0, "lambda_cls": 2.5})
    model = model_for(method).eval()  # without batch statistics each pass can be repeated on its own
    batch = batch_of(method)
    logits = model(float_images(batch.views["x"]))
    partner = model(float_images(batch.views["partner"]))
    expected = torch.nn.functional.cross_entropy(logits, batch.labels) + 2.5 * class_wise_kl(logits, partner, 3.0)
    torch.testing.assert_close(step_loss(method, model, batch), expected)


def test_the_partners_pass_makes_no_graph_and_both_passes_update_the_batch_statistics():
    method = build_method("cs-kd")
    model = model_for(method).train()
    batch = batch_of(method)
    cache = ForwardCache(model, batch, float_images)
    logits, target = cache.logits("x"), cache.target_logits("partner")
    assert logits.requires_grad
    assert not target.requires_grad
    assert model.training
    assert model.backbone.bn1.num_batches_tracked == 2
    after = model.backbone.bn1.running_mean.clone()

    fresh = model_for(method).train()
    with torch.no_grad():
        fresh(float_images(batch.views["x"]))
        fresh(float_images(batch.views["partner"]))
    torch.testing.assert_close(after, fresh.backbone.bn1.running_mean)


def test_the_gradient_is_that_of_a_constant_target():
    method = build_method("cs-kd", {"lambda_cls": 5.0})
    batch = batch_of(method)
    model = model_for(method).eval()
    step_loss(method, model, batch).backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    constant = model(float_images(batch.views["partner"])).detach().clone()
    logits = model(float_images(batch.views["x"]))
    loss = torch.nn.functional.cross_entropy(logits, batch.labels) + 5.0 * class_wise_kl(logits, constant, 4.0)
    loss.backward()
    for grad, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_each_view_is_passed_through_the_network_once():
    method = build_method("cs-kd")
    model = model_for(method)
    cache = ForwardCache(model, batch_of(method), float_images)
    assert cache.logits("x") is cache.logits("x")
    assert cache.target_logits("partner") is cache.target_logits("partner")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cs-kd", {"temperature": -1.0}, "temperature must be positive"),
        ("cs-kd", {"temperature": 0.0}, "temperature must be positive"),
        ("cs-kd", {"temperature": float("nan")}, "temperature"),
        ("cs-kd", {"lambda_cls": -0.1}, "lambda_cls"),
        ("cs-kd", {"lambda": 1.0}, "no hyper-parameter 'lambda': it has temperature, lambda_cls"),
        ("cross-entropy", {"temperature": 1.0}, "it has none"),
        ("cskd", {}, "unknown method 'cskd': choose from adacos"),
        ("cs-kd-e", {"lambda_e": -1.0}, "lambda_e must be zero or positive"),
        ("label-smoothing", {"epsilon": 1.0}, "epsilon must be from 0 to below 1"),
        ("max-entropy", {"beta": -1.0}, "beta"),
        ("mixup", {"alpha": 0.0}, "alpha must be positive"),
        ("kd", {"temperature": 0.0}, "temperature must be positive"),
        ("kd", {"lambda_kd": float("inf")}, "lambda_kd"),
        ("ddgsd", {"mu": -1.0}, "mu"),
        ("byot", {"alpha": 1.5}, "alpha must be from 0 to 1"),
        (
            "mixup+cs-kd",
            {"temperature": 1.0},
            "no hyper-parameter 'temperature': it has mixup.alpha, cs-kd.temperature",
        ),
        ("mixup+cs-kd", {"cs-kd.lambda": 1.0}, "cs-kd has no hyper-parameter 'lambda'"),
        ("mixup+cs-kd", {"cs-kd.temperature": 0.0}, "cs-kd: temperature must be positive"),
        ("mixup+cskd", {}, "unknown method 'cskd'"),
        ("cs-kd+mixup", {}, "method cs-kd\\+mixup is written mixup\\+cs-kd"),
        ("cs-kd+cs-kd", {}, r"method cs-kd\+cs-kd: cs-kd is given twice"),
        ("adacos+adacos", {}, r"method adacos\+adacos: adacos is given twice"),
        ("mixup+cs-kd+mixup", {}, r"method mixup\+cs-kd\+mixup: mixup is given twice"),
        ("mixup+cs-kd", {"kd.temperature": 1.0}, "no hyper-parameter 'kd.temperature': it has mixup.alpha, cs-kd.t"),
        ("mixup+cs-kd", {"cs-kd": 1.0}, "no hyper-parameter 'cs-kd': it has mixup.alpha, cs-kd.t"),
        ("adacos+mixup", {}, "adacos cannot be combined"),
        ("mixup+adacos", {}, "adacos cannot be combined"),
        ("label-smoothing+ddgsd", {}, "label-smoothing replaces the cross-entropy, of which ddgsd has more than one"),
        ("virtual-softmax+byot", {}, "of which byot has more than one"),
        ("virtual-softmax+mixup", {}, "virtual-softmax needs one true class an image, and mixup mixes several"),
        ("virtual-softmax+label-smoothing", {}, "each replace the cross-entropy"),
        ("cs-kd+cs-kd-e", {}, "more than one of the methods adds class_wise_kl"),
        ("cross-entropy+cs-kd", {}, "cross-entropy adds nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, parameters, message):
    with pytest.raises(UserError, match=message) as caught:
        build_method(name, parameters)
    assert "\n" not in str(caught.value)


def test_hyper_parameters_are_the_dataclass_fields():
    assert dataclasses.asdict(build_method("cs-kd")) == {"temperature": 4.0, "lambda_cls": 1.0}


def test_a_sum_has_its_parts_terms_and_parameters():
    method = build_method("mixup+cs-kd", {"mixup.alpha": 0.3, "cs-kd.lambda_cls": 2.0})
    assert [term.name for term in method.terms()] == ["cross_entropy", "class_wise_kl"]
    assert method.parameters() == {"mixup.alpha": 0.3, "cs-kd.temperature": 4.0, "cs-kd.lambda_cls": 2.0}
    assert method.views == {"x", "partner"}
    assert method.mixes_labels
    assert not method.needs_teacher


@pytest.mark.parametrize("name", ["kd+cs-kd", "label-smoothing+cs-kd", "byot+cs-kd", "virtual-softmax+cs-kd"])
def test_a_sum_is_the_sum(name):
    """The loss of a + b is the loss of a plus that of b, without a second cross-entropy."""
    whole = build_method(name)
    first, second = (build_method(part) for part in method_parts(name))
    model = model_for(whole).eval()  # each pass can be repeated on its own
    batch = batch_of(whole)
    shared = second.classification().loss(forward_cache(second, model, batch))
    expected = step_loss(first, model, batch) + step_loss(second, model, batch) - shared
    torch.testing.assert_close(step_loss(whole, model, batch), expected)
