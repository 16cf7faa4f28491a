"""Separation of the classes: how tight they are in the pooled features and in the predictions.

Features are (N, D), logits (N, C), labels (N,) class indices; torch tensors or NumPy arrays, computed in float64.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist

from cskd.evaluate.scores import validate, validate_features


def feature_spread(features, labels) -> float:
    """Return the mean L2 distance of a feature to its class mean, divided by the mean distance of two class means.

    The first mean is over images, the second over pairs of classes with images. 0 means that every class is a point.
    Scale, shift and rotation of the features do not change the value.

    Raises ValueError for fewer than two classes, for equal class means (to 1e-12 of the largest feature), and for NaN
    or infinite features.
    """
    features = torch.as_tensor(features)
    features, labels = (values.cpu().numpy() for values in validate_features(features, labels, features.dtype))
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"the spread needs images of at least two classes, not of {len(classes)}")
    # One class at a time fits into the processor's cache; all features in float64 do not.
    means, within = np.empty((len(classes), features.shape[1])), np.empty(len(features))
    for number in range(len(classes)):
        members = np.flatnonzero(index == number)
        values = features[members].astype(np.float64)
        means[number] = values.sum(axis=0) / len(members)
        values -= means[number]
        within[members] = np.sqrt(np.einsum("nd,nd->n", values, values))
    between = pdist(means).mean()
    if between <= 1e-12 * max(abs(float(features.max())), abs(float(features.min()))):
        raise ValueError("all class means are equal: the spread is undefined")
    return float(within.mean() / between)


def prediction_variance(logits, labels) -> float:
    """Return the mean squared distance of a class's softmax vectors to their mean, averaged over classes, 0 to 1.

    Classes without images are left out; a class with one image has the variance 0.
    Raises ValueError for undefined input, as ``scores``.
    """
    logits, labels = validate(logits, labels)
    probabilities, labels = logits.softmax(1).cpu().numpy(), labels.cpu().numpy()
    index = np.unique(labels, return_inverse=True)[1]
    count = np.bincount(index)
    members = csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape=(len(count), len(index)))
    means = members @ probabilities / count[:, None]
    squares = np.square(probabilities - means[index]).sum(axis=1)
    return float((np.bincount(index, weights=squares) / count).mean())
