"""The network of a run with its initial weights."""

import torch

from cskd.methods import build_method
from cskd.models import Classifier, build_model
from cskd.utils.seeding import derived_seed
from experiments.config.spec import RunSpec


def initialised_model(spec: RunSpec, num_classes: int) -> Classifier:
    """Return the run's network with the initial weights of its seed."""
    method = build_method(spec.method, spec.parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "init"))
        return build_model(
            spec.architecture,
            num_classes,
            spec.settings.inputs.image_size,
            width=spec.settings.width,
            build_head=method.build_head,
            build_auxiliary=method.build_auxiliary,
        )
