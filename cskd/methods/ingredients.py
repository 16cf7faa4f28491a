"""Variants of CS-KD that each leave out or replace one ingredient, to find out what makes it work.

All are ours. ``docs/ingredients.md`` says what it means if one of them equals CS-KD.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cskd.batch import Batch
from cskd.losses import at_least_float32, class_wise_kl, distillation_kl
from cskd.methods.base import ForwardCache, Term
from cskd.methods.cs_kd import ClassWiseSelfKnowledgeDistillation


@dataclass(frozen=True)
class SameImage(ClassWiseSelfKnowledgeDistillation):
    """CS-KD with another augmentation of the same image in place of the partner."""

    name = "same-image"
    source = "ours: consistency under augmentation, without the class"

    def regularisers(self) -> tuple[Term, ...]:
        return (Term("same_image_kl", self.same_image_kl, self.lambda_cls, frozenset({"x", "second"})),)

    def same_image_kl(self, cache: ForwardCache) -> Tensor:
        return distillation_kl(cache.logits("x"), cache.target_logits("second"), self.temperature)


@dataclass(frozen=True)
class PermutedPartner(ClassWiseSelfKnowledgeDistillation):
    """CS-KD whose target has its wrong classes in random order: the same entropy, but no similarity of classes."""

    name = "permuted-partner"
    source = "ours: entropy alone, without knowledge about the wrong classes"
    requires_hard_labels = True

    def transform(self, batch: Batch, random: Generator) -> Batch:
        order = permutation_of_wrong_classes(batch.labels, batch.num_classes, random)
        return replace(batch, views=batch.views | {"permutation": order})

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        target = cache.target_logits("partner").gather(1, cache.batch.views["permutation"])
        return class_wise_kl(cache.logits("x"), target, self.temperature)


def permutation_of_wrong_classes(labels: Tensor, num_classes: int, random: Generator) -> Tensor:
    """Return for each of the labels (N,) a random permutation of the classes (N, C) with the label in its place."""
    # As in Mixup: the step must not wait for a GPU.
    pinned = labels.device.type == "cuda"
    drawn = torch.rand(len(labels), num_classes, generator=random, pin_memory=pinned)
    drawn = drawn.to(labels.device, non_blocking=True)
    classes = torch.arange(num_classes, device=labels.device).expand(len(labels), -1)
    is_label = classes == labels[:, None]
    # The label comes first in both orders; the wrong classes follow, ascending and at random.
    ascending = (classes + 1).masked_fill(is_label, 0).argsort(dim=1)
    shuffled = drawn.masked_fill(is_label, -1).argsort(dim=1)
    return torch.empty_like(classes).scatter(1, ascending, shuffled)


class RunningMeans(nn.Module):
    """The running mean of the softened predictions of each class, ``means`` (C, C); row y is that of class y."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("means", torch.full((num_classes, num_classes), 1 / num_classes))

    @torch.no_grad()
    def update(self, probabilities: Tensor, labels: Tensor, momentum: float) -> None:
        """Move the mean of each class in the batch towards its predictions (N, C) by 1 - momentum."""
        members = F.one_hot(labels, len(self.means)).to(probabilities.dtype).T
        count = members.sum(dim=1, keepdim=True)
        with torch.autocast(probabilities.device.type, enabled=False):  # bf16 is too coarse for a running mean
            batch_means = (members @ probabilities) / count.clamp(min=1)
        moved = momentum * self.means + (1 - momentum) * batch_means
        self.means.copy_(torch.where(count > 0, moved, self.means))


@dataclass(frozen=True)
class ClassMean(ClassWiseSelfKnowledgeDistillation):
    """CS-KD whose target is the running mean of the predictions for the class: one forward pass per step."""

    name = "class-mean"
    source = "ours: the partner as an estimate of the class's mean prediction"
    requires_hard_labels = True

    momentum: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        self.require("momentum", 0 <= self.momentum < 1, "from 0 to below 1")

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module:
        return RunningMeans(num_classes)

    def regularisers(self) -> tuple[Term, ...]:
        return (Term("class_mean_kl", self.class_mean_kl, self.lambda_cls),)

    def class_mean_kl(self, cache: ForwardCache) -> Tensor:
        logits, labels, running = cache.logits("x"), cache.batch.labels, cache.model.auxiliary
        target = running.means[labels]  # of earlier batches: a copy, so that the update does not change it
        running.update(F.softmax(at_least_float32(logits.detach()) / self.temperature, dim=1), labels, self.momentum)
        return distillation_kl(logits, self.temperature * target.clamp(min=1e-30).log(), self.temperature)


@dataclass(frozen=True)
class PairHalves(ClassWiseSelfKnowledgeDistillation):
    """CS-KD on pairs inside the batch: half of its images and their partners. Each half teaches the other.

    All images of the batch are trained on the labels, in one forward pass.
    """

    name = "pair-halves"
    source = "ours: CS-KD without the extra forward pass"
    incompatible_logits = True  # they are those of other images than the loader's

    def transform(self, batch: Batch, random: Generator) -> Batch:
        half = len(batch.labels) // 2
        labels = batch.labels[:half].repeat(2)
        images = torch.cat([batch.views["x"][:half], batch.views["partner"][:half]])
        return replace(batch, views={"x": images}, labels=labels, targets=labels)

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        logits = cache.logits("x")
        return class_wise_kl(logits, logits.roll(len(logits) // 2, dims=0), self.temperature)


@dataclass(frozen=True)
class PartnerPass(ClassWiseSelfKnowledgeDistillation):
    """Cross-entropy with the partner's forward pass, which only changes the statistics of BatchNorm."""

    name = "partner-pass"
    source = "ours: what the partner's pass does to BatchNorm"

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        return 0.0 * cache.target_logits("partner").float().sum()


@dataclass(frozen=True)
class AnyPartner(ClassWiseSelfKnowledgeDistillation):
    """CS-KD whose target is the prediction for an image of any class: the partner of another image in the batch."""

    name = "any-partner"
    source = "ours: a softened prediction as target, without the class"

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        return distillation_kl(cache.logits("x"), cache.target_logits("partner").roll(1, dims=0), self.temperature)


@dataclass(frozen=True)
class BothGradients(ClassWiseSelfKnowledgeDistillation):
    """CS-KD with gradient through both predictions. Two forward and two backward passes per step."""

    name = "both-gradients"
    source = "ours: what leaving out the gradient through the partner does"

    def class_wise_kl(self, cache: ForwardCache) -> Tensor:
        return distillation_kl(cache.logits("x"), cache.logits("partner"), self.temperature, detach=False)
