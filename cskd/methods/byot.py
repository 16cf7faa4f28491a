"""BYOT (be your own teacher): classifiers on the earlier stages learn from the labels and the deepest classifier."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cskd.losses import at_least_float32, cross_entropy, distillation_kl
from cskd.methods.base import ForwardCache, Method, Term
from cskd.utils.errors import UserError


def hint(features: Tensor, target_features: Tensor, squared: bool = True) -> Tensor:
    """Return the squared L2 distance to the target features, mean over the batch. Both (N, D); no target gradient.

    squared: False returns the L2 norm of the whole batch of differences instead.
    """
    difference = at_least_float32(features) - at_least_float32(target_features.detach())
    return difference.square().sum(dim=1).mean() if squared else torch.linalg.vector_norm(difference)


class ShallowClassifier(nn.Module):
    """Features (N, feature_size) and logits (N, num_classes) from a stage's feature map (N, channels, H, W).

    The bottleneck brings the map to the size and channels of the deepest stage. It ends without ReLU, since the
    features of the network for small images have both signs.
    """

    def __init__(self, channels: int, stride: int, feature_size: int, num_classes: int):
        super().__init__()
        middle = max(1, feature_size // 4)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, middle, kernel_size=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, kernel_size=stride, stride=stride, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, feature_size, kernel_size=1, bias=False),
            nn.BatchNorm2d(feature_size),
        )
        self.head = nn.Linear(feature_size, num_classes)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        features = self.bottleneck(feature_map).mean(dim=(2, 3))
        return features, self.head(features)


class ShallowClassifiers(nn.ModuleList):
    """A classifier on every stage except the deepest. Each stage halves the size of the feature map."""

    def __init__(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int):
        earlier = stage_channels[:-1]
        super().__init__(
            ShallowClassifier(channels, 2 ** (len(earlier) - stage), feature_size, num_classes)
            for stage, channels in enumerate(earlier)
        )

    def forward(self, stages: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        return [classifier(feature_map) for classifier, feature_map in zip(self, stages[:-1], strict=True)]


@dataclass(frozen=True)
class BeYourOwnTeacher(Method):
    """CE(x, y) of the deepest classifier, plus for each shallow classifier
    (1 - alpha) * CE + alpha * KL(P_deepest(.|x; T) || P_shallow(.|x; T)) + lambda_hint * ||f_shallow - f_deepest||^2.

    The deepest classifier is the teacher, without gradient. Evaluation uses only the deepest classifier.
    """

    name = "byot"
    source = (
        "Zhang et al., ICCV 2019; alpha 0.3, T 3 and no T^2 as in the authors' code; the bottleneck and the hint's "
        "norm are our choice, its weight 0.03 is the authors', for another norm"
    )
    regularisers_have_cross_entropy = True

    temperature: float = 3.0
    alpha: float = 0.3
    lambda_hint: float = 0.03
    squared_hint: bool = True  # False: the norm of the authors' code, for which they chose the weight 0.03

    def __post_init__(self):
        self.require_temperature()
        self.require("alpha", 0 <= self.alpha <= 1, "from 0 to 1")
        self.require_weight("lambda_hint")
        self.require_reading("squared_hint")

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module:
        if not stage_channels:
            raise UserError(
                "byot needs the feature maps of four stages, which this network does not have: choose another"
            )
        return ShallowClassifiers(stage_channels, feature_size, num_classes)

    def regularisers(self) -> tuple[Term, ...]:
        return (
            Term("shallow_cross_entropy", self.shallow_cross_entropy, 1 - self.alpha),
            Term("shallow_kl", self.shallow_kl, self.alpha),
            Term("hint", self.hint, self.lambda_hint),
        )

    def shallow_cross_entropy(self, cache: ForwardCache) -> Tensor:
        return _sum_over_shallow(cache, lambda features, logits: cross_entropy(logits, cache.batch.targets))

    def shallow_kl(self, cache: ForwardCache) -> Tensor:
        def kl(features: Tensor, logits: Tensor) -> Tensor:
            return distillation_kl(logits, cache.logits("x"), self.temperature) / self.temperature**2

        return _sum_over_shallow(cache, kl)

    def hint(self, cache: ForwardCache) -> Tensor:
        return _sum_over_shallow(cache, lambda features, logits: hint(features, cache.features("x"), self.squared_hint))


def _sum_over_shallow(cache: ForwardCache, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the sum of ``loss(features, logits)`` over the shallow classifiers."""
    return torch.stack([loss(features, logits) for features, logits in cache.auxiliary("x")]).sum()
