"""How well the confidence tells right from wrong predictions, and how far the wrong ones are from the truth.

Inputs and errors are those of ``cskd.evaluate.scores``: logits (N, C), labels (N,), ValueError for undefined input. The
confidence is the largest softmax probability.
"""

from collections.abc import Sequence

import numpy as np

from cskd.evaluate.scores import confidence_and_correct, validate

# Krizhevsky 2009, in the official order; its classes are sorted by name.
CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: group for group, names in CIFAR100_SUPERCLASSES.items() for name in names.split()}


def risk_coverage_area(logits, labels) -> float:
    """Return the AURC: the error of the n most confident images, averaged over n = 1 to N; 0 to 1, lower is better.

    Images of equal confidence are taken in random order; the result is the mean over the orders.
    Source: Geifman and El-Yaniv, NeurIPS 2017; Geifman, Uziel and El-Yaniv, ICLR 2019.
    """
    confidence, correct = confidence_and_correct(logits, labels)
    _, group, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    error = np.bincount(group, weights=~correct) / count  # of each confidence, the highest first
    return float((np.cumsum(np.repeat(error, count)) / np.arange(1, len(correct) + 1)).mean())


def error_detection_auroc(logits, labels) -> float:
    """Return the probability that a right prediction is more confident than a wrong one; equal ones count half.

    Raises ValueError, beside undefined input, if all predictions are right or all are wrong.
    Source: Hendrycks and Gimpel, ICLR 2017.
    """
    confidence, correct = confidence_and_correct(logits, labels)
    if correct.all() or not correct.any():
        raise ValueError("the AUROC of error detection needs right and wrong predictions")
    return _auroc(confidence[correct], confidence[~correct])


def near_ood_auroc(logits, labels, near_ood_logits) -> float:
    """Return the probability that an image is more confident than one of an unknown class; equal ones count half.

    near_ood_logits: (M, C), of images of classes that the network was not trained on, from the same dataset. Raises
    ValueError, beside undefined input, if it is None. Source: Hendrycks and Gimpel, ICLR 2017 (maximum softmax).
    """
    if near_ood_logits is None:
        raise ValueError("there are no predictions of images of other classes")
    known, _ = confidence_and_correct(logits, labels)
    unknown, _ = confidence_and_correct(near_ood_logits, np.zeros(len(near_ood_logits), int))  # labels are not used
    return _auroc(known, unknown)


def _auroc(first: np.ndarray, second: np.ndarray) -> float:
    """Return the probability that a value of ``first`` is above one of ``second``; equal ones count half."""
    from scipy.stats import rankdata  # noqa: PLC0415 - takes a second to import

    ranks = rankdata(np.concatenate([first, second]))[: len(first)].sum()
    return float((ranks - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))


def superclass_error_share(logits, labels, classes: Sequence[str]) -> float:
    """Return the fraction of wrong predictions whose class is in the superclass of the true class.

    classes: the C class names. Raises ValueError, beside undefined input, without wrong predictions, and for classes
    without a known superclass.
    """
    logits, labels = validate(logits, labels)
    if len(classes) != logits.shape[1] or not set(classes) <= set(SUPERCLASS_OF):
        raise ValueError("superclasses are known for the classes of CIFAR-100 only")
    group = np.array([SUPERCLASS_OF[name] for name in classes])
    predicted, true = logits.argmax(1).cpu().numpy(), labels.cpu().numpy()
    wrong = predicted != true
    if not wrong.any():
        raise ValueError("no wrong predictions: the share is undefined")
    return float((group[predicted[wrong]] == group[true[wrong]]).mean())
