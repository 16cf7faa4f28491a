"""The variants of CS-KD against their formulas, from the network's own predictions."""

import torch
from stepping import batch_of, float_images, forward_cache, model_for, step_loss
from torch.nn.functional import cross_entropy

from cskd.losses import class_wise_kl
from cskd.methods import build_method
from cskd.methods.ingredients import permutation_of_wrong_classes


def loss_and_logits(name: str, *views: str):
    """Return (loss of the method with lambda_cls 3 and T 2, logits of the views), in evaluation mode."""
    method = build_method(name, {"temperature": 2.0, "lambda_cls": 3.0})
    model, batch = model_for(method).eval(), batch_of(method)
    return step_loss(method, model, batch), [model(float_images(batch.views[view])) for view in views], batch.labels


def test_same_image_learns_from_another_augmentation():
    loss, (x, second), labels = loss_and_logits("same-image", "x", "second")
    torch.testing.assert_close(loss, cross_entropy(x, labels) + 3 * class_wise_kl(x, second, 2.0))


def test_each_half_of_the_pairs_teaches_the_other():
    loss, (x, partner), labels = loss_and_logits("pair-halves", "x", "partner")
    x, partner, labels = x[:3], partner[:3], labels[:3]
    both = class_wise_kl(x, partner, 2.0) + class_wise_kl(partner, x, 2.0)
    torch.testing.assert_close(loss, cross_entropy(torch.cat([x, partner]), labels.repeat(2)) + 3 * both / 2)


def test_partner_pass_changes_the_statistics_of_batch_norm_only():
    loss, (x,), labels = loss_and_logits("partner-pass", "x")
    torch.testing.assert_close(loss, cross_entropy(x, labels))
    method = build_method("partner-pass")
    model = model_for(method).train()
    step_loss(method, model, batch_of(method)).backward()
    assert model.backbone.bn1.num_batches_tracked == 2


def test_any_partner_learns_from_the_partner_of_another_image():
    loss, (x, partner), labels = loss_and_logits("any-partner", "x", "partner")
    others = partner[[5, 0, 1, 2, 3, 4]]
    torch.testing.assert_close(loss, cross_entropy(x, labels) + 3 * class_wise_kl(x, others, 2.0))


def test_both_gradients_trains_through_the_partner_too():
    method = build_method("both-gradients", {"temperature": 2.0, "lambda_cls": 3.0})
    model, batch = model_for(method).double().eval(), batch_of(method)
    cache = forward_cache(method, model, batch, prepare=lambda images: float_images(images).double())
    x, partner = (cache.logits(view) for view in ("x", "partner"))
    p, q = ((logits / 2).softmax(1) for logits in (x, partner))
    expected = cross_entropy(x, batch.labels) + 3 * 4 * (q * (q / p).log()).sum(1).mean()
    loss = sum(term.weight * term.loss(cache) for term in method.terms())
    weights = list(model.parameters())
    found, wanted = (torch.autograd.grad(value, weights, retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close((loss, *found), (expected, *wanted))


def test_permutation_moves_the_wrong_classes_evenly_and_keeps_the_label():
    labels = torch.arange(4).repeat(5000)
    order = permutation_of_wrong_classes(labels, 4, torch.Generator().manual_seed(0))
    assert torch.equal(order.gather(1, labels[:, None])[:, 0], labels)
    assert torch.equal(order.sort(dim=1).values, torch.arange(4).expand(20000, 4))
    of_first = order[labels == 0]
    shares = torch.stack([(of_first[:, 1:] == wrong).float().mean(0) for wrong in (1, 2, 3)])
    torch.testing.assert_close(shares, torch.full((3, 3), 1 / 3), atol=0.03, rtol=0)


def test_permuted_partner_learns_from_the_permuted_prediction():
    method = build_method("permuted-partner")
    cache = forward_cache(method, model_for(method).eval(), batch_of(method))
    softened = (cache.target_logits("partner") / 4).softmax(1).gather(1, cache.batch.views["permutation"])
    expected = class_wise_kl(cache.logits("x"), 4 * softened.log(), 4.0)
    torch.testing.assert_close(method.class_wise_kl(cache), expected)


def test_class_mean_learns_from_the_running_mean_of_earlier_batches():
    method = build_method("class-mean", {"temperature": 2.0, "lambda_cls": 3.0, "momentum": 0.75})
    model, batch = model_for(method).eval(), batch_of(method, classes=2)
    means = torch.full((3, 3), 1 / 3)
    x = model(float_images(batch.views["x"]))
    for _ in range(2):
        target = 2 * means[batch.labels].log()
        expected = cross_entropy(x, batch.labels) + 3 * class_wise_kl(x, target, 2.0)
        torch.testing.assert_close(step_loss(method, model, batch), expected)
        for label in (0, 1):  # the third class is not in the batch
            means[label] = 0.75 * means[label] + 0.25 * (x[batch.labels == label].detach() / 2).softmax(1).mean(0)
        torch.testing.assert_close(model.auxiliary.means, means)
