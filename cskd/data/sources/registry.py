"""The registry of datasets by name."""

from cskd.data.sources import cifar100, cub200, digits, dogs, imagenet, mit67, tinyimagenet
from cskd.data.sources.base import DatasetSource

SOURCES: dict[str, DatasetSource] = {
    module.SOURCE.name: module.SOURCE for module in (cifar100, tinyimagenet, cub200, dogs, mit67, imagenet, digits)
}
