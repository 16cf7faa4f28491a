"""What every method must be, found in the registry; and CS-KD's own properties."""

import dataclasses

import pytest
import torch

from cskd.data.loader import Batch
from cskd.errors import UserError
from cskd.losses import class_wise_kl
from cskd.methods import METHODS, Passes, build_method
from cskd.models import build_model


def float_images(images):
    return images.float() / 255


def batch_of(method, classes=3) -> Batch:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(6) % classes
    views = {
        view: torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=random) for view in sorted(method.views)
    }
    return Batch(views, labels, labels)


def model_for(method, classes=3):
    torch.manual_seed(0)
    return build_model("resnet10", classes, 32, width=4, build_head=method.build_head)


def step_loss(method, model, batch):
    passes = Passes(model, method.transform(batch, torch.Generator()), float_images)
    return sum(term.weight * term.loss(passes) for term in method.terms())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_step_and_a_gradient_reaches_every_parameter(name):
    method = build_method(name)
    model = model_for(method)
    loss = step_loss(method, model, batch_of(method))
    loss.backward()
    assert loss.dim() == 0
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
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
    passes = Passes(model, batch, float_images)
    logits, target = passes.logits("x"), passes.target_logits("partner")
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
    passes = Passes(model, batch_of(method), float_images)
    assert passes.logits("x") is passes.logits("x")
    assert passes.target_logits("partner") is passes.target_logits("partner")


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("cs-kd", {"temperature": -1.0}, "temperature must be positive"),
        ("cs-kd", {"temperature": 0.0}, "temperature must be positive"),
        ("cs-kd", {"temperature": float("nan")}, "temperature"),
        ("cs-kd", {"lambda_cls": -0.1}, "lambda_cls"),
        ("cs-kd", {"lambda": 1.0}, "no hyper-parameter 'lambda': it has temperature, lambda_cls"),
        ("cross-entropy", {"temperature": 1.0}, "it has none"),
        ("cskd", {}, "unknown method 'cskd': choose from cross-entropy, cs-kd"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, parameters, told):
    with pytest.raises(UserError, match=told) as caught:
        build_method(name, parameters)
    assert "\n" not in str(caught.value)


def test_hyper_parameters_are_the_dataclass_fields():
    assert dataclasses.asdict(build_method("cs-kd")) == {"temperature": 4.0, "lambda_cls": 1.0}
