"""How tight the classes are: in the pooled features, and in the predictions, which CS-KD draws together.

Features are (N, D), logits (N, C), labels (N,) class indices; torch tensors or NumPy arrays, computed in float64.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist

from cskd.evaluate.scores import checked, checked_features


def feature_spread(features, labels) -> float:
    """The mean distance (L2) of a feature to its class's mean, over the mean distance between two class means.

    The first mean is over the images, the second over the pairs of classes that have any. 0: every class is a point;
    lower: tighter classes. Scale, shift and rotation of the features leave it as it is.
    Raises ValueError where it is undefined: fewer than two classes, class means that are all equal (to 1e-12 of the
    largest feature), NaN or infinite features.
    """
    features = torch.as_tensor(features)
    features, labels = (each.cpu().numpy() for each in checked_features(features, labels, features.dtype))
    classes, own = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"the spread needs images of at least two classes, not of {len(classes)}")
    # A class at a time fits into the processor's cache, which all features in float64 do not.
    means, within = np.empty((len(classes), features.shape[1])), np.empty(len(features))
    for number in range(len(classes)):
        members = np.flatnonzero(own == number)
        values = features[members].astype(np.float64)
        means[number] = values.sum(axis=0) / len(members)
        values -= means[number]
        within[members] = np.sqrt(np.einsum("nd,nd->n", values, values))
    between = pdist(means).mean()
    if between <= 1e-12 * max(abs(float(features.max())), abs(float(features.min()))):
        raise ValueError("all class means are equal: the spread is undefined")
    return float(within.mean() / between)


def prediction_variance(logits, labels) -> float:
    """The mean squared distance of a class's softmax vectors to their mean, as a mean over the classes: 0..1.

    Classes without images do not count; one with a single image has a variance of 0.
    Raises ValueError for undefined input, as the metrics do.
    """
    logits, labels = checked(logits, labels)
    return variance_within_classes(logits.softmax(1).cpu().numpy(), labels.cpu().numpy())


def variance_within_classes(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """``prediction_variance`` of probabilities (N, C) that are there already."""
    means, own = _class_means(probabilities, labels)
    squares = np.square(probabilities - means[own]).sum(axis=1)
    return float((np.bincount(own, weights=squares) / np.bincount(own)).mean())


def _class_means(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (K, D) of each of the K classes that have images, and which of them each image belongs to (N,)."""
    own = np.unique(labels, return_inverse=True)[1]
    count = np.bincount(own)
    members = csr_array((np.ones(len(own)), (own, np.arange(len(own)))), shape=(len(count), len(own)))
    return members @ values / count[:, None], own
