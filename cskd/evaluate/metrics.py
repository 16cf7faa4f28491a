"""The metric registry: every metric of predictions, with its name, its display and its function.

Training, MLflow, tables, tuning, verdicts and the measured CSV files read this list. A new metric is one entry here.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

EPOCH, LAST, STORED = "epoch", "last", "stored"
LOGITS, FEATURES, CLASSES, NEAR_OOD = "logits", "features", "classes", "near_ood"
PERCENT = 100


@dataclass(frozen=True)
class Metric:
    """One metric of predictions.

    name: the name in MLflow, as ``test/<name>`` or ``validation/<name>``, and in CSV columns.
    short_name: the name in file names, and of a tuning objective.
    title, unit: the heading of its table is ``title (unit)``.
    function: ``(logits (N, C), labels (N,)) -> float``; ``(features (N, D), labels (N,)) -> float`` if ``of`` is
        FEATURES; ``(logits, labels, class names) -> float`` if it is CLASSES; ``(logits, labels, logits (M, C) of
        images of other classes or None) -> float`` if it is NEAR_OOD. None for the metrics of one domain, which
        ``scores.domain_metrics`` computes together.
    scale: multiplies the function's value; PERCENT for a fraction.
    when: EPOCH, after every epoch; LAST, after the last epoch only, for slow metrics and metrics of the features;
        STORED, in the analysis, from stored predictions.
    rescaled: the analysis also computes it after temperature scaling. For metrics of the probabilities.
    equivalence_margin: the smallest difference of two methods that matters, in the metric's unit (docs/judgement.md);
        None if none is fixed.
    min_classes: with fewer classes a tracked metric is left out, because it is the same for every network.
    """

    name: str
    short_name: str
    title: str
    unit: str
    function: Callable[..., float] | None
    scale: float = 1
    of: str = LOGITS
    when: str = EPOCH
    decimals: int = 2
    higher_is_better: bool = False
    rescaled: bool = False
    equivalence_margin: float | None = None
    min_classes: int = 1

    @property
    def label(self) -> str:
        return f"{self.title} ({self.unit})"

    @property
    def last(self) -> str:
        """The column of its value after the last epoch."""
        return f"test/{self.name}"

    @property
    def best(self) -> str:
        """The column of its value at the best test epoch. Only metrics of ``EPOCH`` have one."""
        return f"best/{self.name}"

    @property
    def at_best_epoch(self) -> bool:
        return self.when == EPOCH

    def value(self, logits, labels, features=None, classes: Sequence[str] = (), near_ood=None) -> float:
        """Return the metric of these predictions in its unit. Raises ValueError for undefined input."""
        if self.of == NEAR_OOD:
            return self.scale * self.function(logits, labels, near_ood)
        if self.of == CLASSES:
            return self.scale * self.function(logits, labels, classes)
        return self.scale * self.function(features if self.of == FEATURES else logits, labels)


class LazyModule:
    """A module of functions that is imported at the first call of one of them: those of the metrics import torch."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, function: str) -> Callable:
        def call(*arguments, **options):
            return getattr(importlib.import_module(self._name), function)(*arguments, **options)

        return call


scores, calibration, confidence, separation = (
    LazyModule(f"cskd.evaluate.{name}") for name in ("scores", "calibration", "confidence", "separation")
)

METRICS = (
    Metric("top1_error", "error", "Top-1 error", "%", scores.top_k_error, PERCENT, rescaled=True,
           equivalence_margin=1),
    Metric("top5_error", "top5_error", "Top-5 error", "%", partial(scores.top_k_error, k=5), PERCENT,
           equivalence_margin=1, min_classes=6),
    Metric("ece", "ece", "ECE", "%, 20 bins", scores.expected_calibration_error, PERCENT, rescaled=True,
           equivalence_margin=2),
    Metric("nll", "nll", "Negative log-likelihood", "nats", scores.negative_log_likelihood, decimals=3, rescaled=True,
           equivalence_margin=0.06),
    Metric("brier", "brier", "Brier score", "0 to 2", scores.brier_score, decimals=3, rescaled=True),
    Metric("recall_at_1", "recall_at_1", "R@1", "%", scores.recall_at_1, PERCENT, FEATURES, LAST,
           higher_is_better=True, equivalence_margin=1),
    Metric("debiased_ece", "debiased_ece", "Debiased ECE", "%, 20 bins", calibration.debiased_calibration_error,
           PERCENT, when=STORED, rescaled=True, equivalence_margin=2),
    Metric("scaled_nll", "scaled_nll", "NLL after temperature scaling", "nats", calibration.scaled_nll, when=STORED,
           decimals=3, equivalence_margin=0.06),
    Metric("ece_floor", "ece_floor", "ECE of a calibrated network", "%, mean", calibration.calibration_floor,
           PERCENT, when=STORED),
    Metric("ece_floor_95", "ece_floor_95", "ECE of a calibrated network", "%, 95 % quantile",
           partial(calibration.calibration_floor, quantile=0.95), PERCENT, when=STORED),
    Metric("adaptive_ece", "adaptive_ece", "Adaptive ECE", "%, 20 bins of equal mass",
           calibration.adaptive_calibration_error, PERCENT, when=STORED, rescaled=True),
    Metric("classwise_ece", "classwise_ece", "Class-wise ECE", "%, 20 bins", calibration.classwise_calibration_error,
           PERCENT, when=STORED, rescaled=True),
    Metric("aurc", "aurc", "AURC", "%", confidence.risk_coverage_area, PERCENT, when=STORED),
    Metric("error_auroc", "error_auroc", "AUROC of error detection", "%", confidence.error_detection_auroc, PERCENT,
           when=STORED, higher_is_better=True),
    Metric("near_ood_auroc", "near_ood_auroc", "AUROC of unknown classes", "%", confidence.near_ood_auroc, PERCENT,
           NEAR_OOD, STORED, higher_is_better=True),
    Metric("superclass_errors", "superclass_errors", "Errors within the superclass", "% of the errors",
           confidence.superclass_error_share, PERCENT, CLASSES, STORED, higher_is_better=True),
    Metric("feature_spread", "feature_spread", "Feature spread", "within-class / between-class distance",
           separation.feature_spread, of=FEATURES, when=STORED, decimals=3),
    Metric("prediction_variance", "prediction_variance", "Prediction variance", "0 to 1",
           separation.prediction_variance, when=STORED, decimals=3),
)  # fmt: skip
TRACKED = tuple(metric for metric in METRICS if metric.when != STORED)
RESCALED = tuple(metric for metric in METRICS if metric.rescaled)
UNSCALED = tuple(metric for metric in METRICS if metric.when == STORED and not metric.rescaled)

DOMAINS = ("cub200", "dogs", "mit67")  # of the merged dataset
DOMAIN_ACCURACIES = {
    domain: Metric(f"domain_accuracy_{domain}", "figure4", "Domain accuracy", "%", None, decimals=1,
                   higher_is_better=True, equivalence_margin=1)
    for domain in DOMAINS
}  # fmt: skip
DOMAIN_ERRORS = {
    domain: Metric(f"top1_error_{domain}", "figure4", "Top-1 error of a domain's images", "%", None,
                   equivalence_margin=1)
    for domain in DOMAINS
}  # fmt: skip


def all_metrics() -> dict[str, Metric]:
    """Return every metric by name, including those of single domains."""
    return {metric.name: metric for metric in (*METRICS, *DOMAIN_ACCURACIES.values(), *DOMAIN_ERRORS.values())}


def evaluate_predictions(logits, labels, features=None, domains: Sequence[str] | None = None) -> dict[str, float]:
    """Return every tracked metric by name, in the metric's unit.

    Metrics of ``LAST`` are left out if ``features`` is None, and those that need more classes than there are. domains:
    the domain of each class, for the metrics of single domains. Raises ValueError for undefined input, see ``scores``.
    """
    metrics = [metric for metric in TRACKED if metric.when == EPOCH or features is not None]
    metrics = [metric for metric in metrics if metric.min_classes <= logits.shape[1]]
    values = {metric.name: metric.value(logits, labels, features) for metric in metrics}
    if domains is not None:
        values |= scores.domain_metrics(logits, labels, domains)
    return values


def evaluate_calibration(logits, labels) -> dict[str, float]:
    """Return the metrics of ``RESCALED`` by name, in the metric's unit. Raises ValueError for undefined input."""
    return {metric.name: metric.value(logits, labels) for metric in RESCALED}
