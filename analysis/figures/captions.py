"""The alternative text and the caption of each kind of figure."""

CAPTIONS = {
    "effects": ("Effects with intervals", ""),  # the chapter explains them
    "figure1b": (
        "Softmax probabilities of misclassified images",
        "Figure 1 (b) of the paper. The five most probable classes of some images that cross-entropy misclassifies. "
        "The images are drawn at random, with a fixed seed.",
    ),
    "figure2": (
        "Histograms of log-probability",
        "Figure 2 of the paper. Log-probability of the predicted and of the true label. Each method has a density over "
        "the test images that it misclassifies. The vertical lines are medians.",
    ),
    "figure3": (
        "t-SNE of features",
        "Figure 3 of the paper. t-SNE (perplexity 30, started from the principal components, fixed seed) of pooled "
        "features, the same images in each panel. Distances between groups mean little. Feature spread is the mean "
        "distance of all test images to the mean of their class, divided by the mean distance between class means.",
    ),
    "figure5": (
        "Reliability diagrams beside CS-KD",
        "Figure 5 of the paper. Upper panels: the accuracy in each of 10 bins of the confidence, over the images of "
        "all seeds. Below the diagonal, a network is over-confident. The ECE has 20 bins and is the mean over seeds. "
        "Lower panels: the share of test images in each bin.",
    ),
    "curves": (
        "Learning curves",
        "Mean and standard deviation (ddof=1) over seeds. The learning rate drops at the vertical lines. Each method "
        "has its own training loss: the losses cannot be compared.",
    ),
    "overfitting": (
        "ECE difference against over-fitting",
        "One point for each epoch: how far cross-entropy over-fits, and how much lower or higher the ECE of CS-KD is. "
        "Training errors are of augmented images.",
    ),
    "calibration": (
        "ECE before and after temperature scaling",
        "Shows how much of a difference remains after temperature scaling. Dots are single seeds. The temperature is "
        "fitted to training images, which the network has learnt, or cross-fitted on halves of the test set.",
    ),
}
