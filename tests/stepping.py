"""One training step of a method on noise images, for tests of the methods."""

import torch

from cskd.batch import Batch
from cskd.methods import METHODS, PAPER_COMPOSITES, ForwardCache, Method
from cskd.models import Classifier, build_model

CLASSES = 3
# Each of these trains like one of the others: the same views, draws and state. A new method is tested.
ALIKE = (
    "virtual-softmax", "max-entropy", "label-smoothing", "mixup", "kd", "cs-kd", "same-image", "pair-halves",
    "partner-pass", "any-partner",
)  # fmt: skip
DIFFERENT_METHODS = [name for name in (*METHODS, *PAPER_COMPOSITES) if name not in ALIKE]


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normally distributed float64 values."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def float_images(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def batch_of(method: Method, classes: int = CLASSES) -> Batch:
    """Return six noise images for each view that the method needs."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(6) % classes
    views = {
        view: torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=random) for view in sorted(method.views)
    }
    return Batch(views, labels, labels, classes)


def model_for(method: Method, classes: int = CLASSES, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build_model(
        "resnet10", classes, 32, width=4, build_head=method.build_head, build_auxiliary=method.build_auxiliary
    )


def teacher_for(method: Method) -> Classifier | None:
    """Return a frozen network with other weights if the method needs a teacher."""
    if not method.needs_teacher:
        return None
    torch.manual_seed(99)
    return build_model("resnet10", CLASSES, 32, width=4).eval().requires_grad_(False)


def forward_cache(
    method: Method, model: Classifier, batch: Batch, teacher: Classifier | None = None, prepare=float_images
) -> ForwardCache:
    transformed = method.transform(batch, torch.Generator().manual_seed(5))
    return ForwardCache(model, transformed, prepare, teacher or teacher_for(method))


def step_loss(method: Method, model: Classifier, batch: Batch, teacher: Classifier | None = None) -> torch.Tensor:
    cache = forward_cache(method, model, batch, teacher)
    return sum(term.weight * term.loss(cache) for term in method.terms())
