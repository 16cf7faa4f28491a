"""The networks, by name: ``build_model("resnet18", num_classes=100, image_size=32)``."""

from cskd.models.build import ARCHITECTURES, build_model, check_architecture
from cskd.models.classifier import Backbone, Classifier

__all__ = ["ARCHITECTURES", "Backbone", "Classifier", "build_model", "check_architecture"]
