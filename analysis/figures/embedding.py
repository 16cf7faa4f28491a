"""Figure 3 of the paper: where methods put the test images, in two dimensions."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from analysis.figures.text import class_name, plain
from cskd.data.splits import choose

CLASSES = 20
IMAGES = 1000
PERPLEXITY = 30
MARKERS = "os^vD<>PX*"
COLORS = matplotlib.color_sequences["tab20"]


def choose_images(labels: np.ndarray) -> np.ndarray:
    """The rows of ``IMAGES`` images of ``CLASSES`` classes at most, ascending; as many of each class as there are.

    labels: (N,). Drawn at random with a fixed seed, from the labels alone: the same images for every method.
    """
    classes = np.unique(labels)
    classes = classes[choose(len(classes), CLASSES, "figures/embedding/classes")]
    each = IMAGES // len(classes)
    chosen = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        chosen.append(members[choose(len(members), each, f"figures/embedding/images/{label}")])
    return np.sort(np.concatenate(chosen))


def embed(features: np.ndarray) -> np.ndarray:
    """t-SNE of features (N, D) in the plane (N, 2): perplexity 30, from the first two principal components, seeded.

    Raises ValueError for fewer than four images or two features, and for features that are all the same.
    """
    if min(features.shape) < 2 or len(features) < 4:
        raise ValueError(f"t-SNE needs four images and two features at least, not {features.shape}")
    if (features == features[0]).all():
        raise ValueError("the features of all images are the same")
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def embedding_figure(
    title: str,
    points: dict[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    spread: dict[str, float] | None = None,
) -> Figure:
    """A panel a method, one legend of the classes for all.

    points: ``{method: (N, 2)}`` of the same images; labels: (N,); classes: names, by label; spread: ``{method:
    feature spread}``, mean within-class over between-class distance, of whoever has it.
    """
    shown = np.unique(labels)
    legend_rows = -(-len(shown) // 5)
    width = max(2.9 * len(points), 6.5)
    # constrained layout does not make room for titles above square panels: the page is as high as all of it
    height = min(width / len(points), 3.25) + 1.1 + 0.2 * legend_rows
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (method, places) in zip(panels, points.items(), strict=True):
        for number, label in enumerate(shown):
            own = places[labels == label]
            style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
            axes.scatter(own[:, 0], own[:, 1], s=9, linewidths=0, label=class_name(classes[label]), **style)
        message = f"\nfeature spread {spread[method]:.2f}" if spread and method in spread else ""
        axes.set_title(plain(method) + message, fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.set_box_aspect(1)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False, markerscale=2)
    figure.suptitle(plain(title), fontsize=10)
    return figure
