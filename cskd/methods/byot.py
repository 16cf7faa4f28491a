"""BYOT, be your own teacher: classifiers on the earlier stages learn from the labels and from the deepest one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cskd.losses import cross_entropy, distillation_kl, precise
from cskd.methods.base import ForwardCache, Method, Term


def hint(features: Tensor, target_features: Tensor) -> Tensor:
    """Squared L2 distance to the features that teach, mean over the batch. Both (N, D); no gradient to the target."""
    return (precise(features) - precise(target_features.detach())).square().sum(dim=1).mean()


class ShallowClassifier(nn.Module):
    """A stage's feature map to features like the deepest ones, and to logits.

    The bottleneck brings the map to the deepest stage's size and channels. It ends without ReLU: the features of
    the network for small images have both signs.
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
        """feature_map: (N, channels, H, W). Returns features (N, feature_size) and logits (N, num_classes)."""
        features = self.bottleneck(feature_map).mean(dim=(2, 3))
        return features, self.head(features)


class ShallowClassifiers(nn.ModuleList):
    """One on every stage but the deepest, each stage half as large as the one before."""

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
    """CE(x, y) of the deepest classifier + for each shallow one
    (1 - alpha) * CE + alpha * KL(P_deepest(.|x; T) || P_shallow(.|x; T)) + lambda_hint * ||f_shallow - f_deepest||^2.

    The deepest classifier teaches without gradient, and alone is tested.
    """

    name = "byot"
    source = (
        "Zhang et al., ICCV 2019; alpha 0.3, T 3 and no T^2 as in the authors' code; the bottleneck and the hint's "
        "norm are ours, its weight 0.03 is theirs for another norm"
    )

    has_own_cross_entropy = True

    temperature: float = 3.0
    alpha: float = 0.3
    lambda_hint: float = 0.03

    def __post_init__(self):
        self.require_temperature()
        self.require("alpha", 0 <= self.alpha <= 1, "from 0 to 1")
        self.require_weight("lambda_hint")

    def build_auxiliary(self, stage_channels: tuple[int, ...], feature_size: int, num_classes: int) -> nn.Module:
        return ShallowClassifiers(stage_channels, feature_size, num_classes)

    def regularisers(self) -> tuple[Term, ...]:
        def over_shallow(loss: Callable[[ForwardCache, Tensor, Tensor], Tensor]) -> Callable[[ForwardCache], Tensor]:
            """The sum over the shallow classifiers of a loss of (passes, features, logits)."""
            return lambda passes: torch.stack([loss(passes, *each) for each in passes.auxiliary("x")]).sum()

        def learns(passes: ForwardCache, features: Tensor, logits: Tensor) -> Tensor:
            return cross_entropy(logits, passes.batch.targets)

        def taught(passes: ForwardCache, features: Tensor, logits: Tensor) -> Tensor:
            return distillation_kl(logits, passes.logits("x"), self.temperature) / self.temperature**2

        def hinted(passes: ForwardCache, features: Tensor, logits: Tensor) -> Tensor:
            return hint(features, passes.features("x"))

        return (
            Term("shallow_cross_entropy", over_shallow(learns), 1 - self.alpha),
            Term("shallow_kl", over_shallow(taught), self.alpha),
            Term("hint", over_shallow(hinted), self.lambda_hint),
        )
