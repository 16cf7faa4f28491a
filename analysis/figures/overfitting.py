"""The ECE difference of CS-KD and cross-entropy against the over-fitting of cross-entropy, over the epochs."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.sources import Group, Note
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.files import Drawing
from cskd.plots import FAINT, INK, plain, wrapped

TEST_ERROR, TRAIN_ERROR, ECE = "test/top1_error", "train/top1_error", "test/ece"


def draw(group: Group, note: Note) -> Drawing:
    group.require(BASELINE, CS_KD)
    means = {}
    for method in (BASELINE, CS_KD):
        names = [TEST_ERROR, TRAIN_ERROR, ECE] if method == BASELINE else [ECE]
        histories = [group.store.load_history(run, names, group.cache) for _, run in group.runs(method).iterrows()]
        means[method] = sum(histories) / len(histories)
    gap = means[BASELINE][TEST_ERROR] - means[BASELINE][TRAIN_ERROR]
    difference = means[CS_KD][ECE] - means[BASELINE][ECE]
    epochs = gap.index.intersection(difference.index)
    if len(epochs) < max(len(gap), len(difference)):
        note("the two methods have different numbers of epochs")
    arrays = (epochs.to_numpy(), gap[epochs].to_numpy(), difference[epochs].to_numpy())
    return Drawing(overfitting_figure, group.title, *arrays)


def overfitting_figure(title: str, epochs: np.ndarray, gap: np.ndarray, difference: np.ndarray) -> Figure:
    """Draw one point per epoch, joined in their order.

    Args:
        epochs: (E,), counted from 0.
        gap: (E,), test minus training error of cross-entropy, in points.
        difference: (E,), ECE of CS-KD minus that of cross-entropy, in points.
    """
    figure = Figure(figsize=(3.8, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=INK, linewidth=1)
    axes.plot(gap, difference, color=FAINT, linewidth=1, zorder=1)
    points = axes.scatter(gap, difference, c=epochs, cmap="plasma", s=18, edgecolors=INK, linewidths=0.3, zorder=2)
    figure.colorbar(points, label="epoch")
    axes.set(
        xlabel="over-fitting of cross-entropy:\ntest minus training error (points)",
        ylabel="ECE, CS-KD \N{MINUS SIGN} cross-entropy\n\N{LEFTWARDS ARROW} CS-KD better (points)",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(plain(wrapped(f"{title}: means over the seeds", 3.8)), fontsize=9)
    return figure
