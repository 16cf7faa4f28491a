"""CS-KD and CS-KD-E: loss, gradient and forward passes; BYOT's evaluation."""

import torch
from stepping import batch_of, float_images, model_for, step_loss
from torch.nn.functional import cross_entropy

from cskd.losses import class_wise_kl, distillation_kl
from cskd.methods import ForwardCache, build_method


def test_cs_kd_e_has_the_loss_and_gradient_of_its_formula():
    method = build_method("cs-kd-e", {"temperature": 2.0, "lambda_cls": 3.0, "lambda_e": 0.5})
    model, batch = model_for(method).eval(), batch_of(method)
    x = model(float_images(batch.views["x"]))
    with torch.no_grad():
        partner, clean = (model(float_images(batch.views[view])) for view in ("partner", "clean"))
    expected = cross_entropy(x, batch.labels) + 3 * class_wise_kl(x, partner, 2.0)
    expected = expected + 0.5 * distillation_kl(x, clean, 2.0)
    loss = step_loss(method, model, batch)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def test_both_passes_of_cs_kd_are_computed_once_and_update_the_batch_statistics():
    method = build_method("cs-kd")
    model, batch = model_for(method).train(), batch_of(method)
    cache = ForwardCache(model, batch, float_images)
    logits, target = cache.logits("x"), cache.target_logits("partner")
    assert cache.logits("x") is logits
    assert cache.target_logits("partner") is target
    assert model.backbone.bn1.num_batches_tracked == 2

    fresh = model_for(method).train()
    with torch.no_grad():
        fresh(float_images(batch.views["x"]))
        fresh(float_images(batch.views["partner"]))
    torch.testing.assert_close(model.backbone.bn1.running_mean, fresh.backbone.bn1.running_mean)


def test_byot_evaluation_uses_the_deepest_classifier_only():
    images = torch.randn(2, 3, 32, 32)
    byot, bare = (model_for(build_method(name)).eval() for name in ("byot", "cross-entropy"))
    calls = []
    byot.auxiliary.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(byot(images), bare(images), rtol=0, atol=0)  # the same seed gives the same weights
    assert not calls
