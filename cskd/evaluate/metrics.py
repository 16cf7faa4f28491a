"""The metric registry: every metric of predictions, with its name, its display and its function.

Training, MLflow, tables, tuning, verdicts and the measured CSV files read this list. A new metric is one entry here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cskd.evaluate.calibration import adaptive_calibration_error, classwise_calibration_error
from cskd.evaluate.scores import (
    brier_score,
    domain_metrics,
    expected_calibration_error,
    negative_log_likelihood,
    recall_at_1,
    top_k_error,
)
from cskd.evaluate.separation import feature_spread

EPOCH, LAST, STORED = "epoch", "last", "stored"


@dataclass(frozen=True)
class Metric:
    """One metric of predictions.

    name: the name in MLflow, as ``test/<name>`` or ``validation/<name>``, and in CSV columns.
    short_name: the name in file names, and of a tuning objective.
    title, unit: the heading of its table is ``title (unit)``.
    function: ``(logits (N, C), labels (N,), features (N, D)) -> float`` in the metric's unit. None for the metrics of
        one domain, which ``scores.domain_metrics`` computes together.
    when: ``EPOCH``, after every epoch; ``LAST``, after the last epoch only, for slow metrics and metrics of the
        features; ``STORED``, in the analysis, from stored predictions.
    """

    name: str
    short_name: str
    title: str
    unit: str
    function: Callable[..., float] | None
    decimals: int = 2
    higher_is_better: bool = False
    when: str = EPOCH

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


def of_logits(function: Callable[..., float], scale: float = 1, **options) -> Callable[..., float]:
    """Return ``scale * function(logits, labels, **options)`` as the function of a metric."""
    return lambda logits, labels, features: scale * function(logits, labels, **options)


def of_features(function: Callable[..., float], scale: float = 1) -> Callable[..., float]:
    """Return ``scale * function(features, labels)`` as the function of a metric."""
    return lambda logits, labels, features: scale * function(features, labels)


PERCENT = 100
METRICS = (
    Metric("top1_error", "error", "Top-1 error", "%", of_logits(top_k_error, PERCENT, k=1)),
    Metric("top5_error", "top5_error", "Top-5 error", "%", of_logits(top_k_error, PERCENT, k=5)),
    Metric("ece", "ece", "ECE", "%, 20 bins", of_logits(expected_calibration_error, PERCENT)),
    Metric("nll", "nll", "Negative log-likelihood", "nats", of_logits(negative_log_likelihood), decimals=3),
    Metric("brier", "brier", "Brier score", "0 to 2", of_logits(brier_score), decimals=3),
    Metric(
        "recall_at_1",
        "recall_at_1",
        "R@1",
        "%",
        of_features(recall_at_1, PERCENT),
        higher_is_better=True,
        when=LAST,
    ),
    Metric(
        "adaptive_ece",
        "adaptive_ece",
        "Adaptive ECE",
        "%, 20 bins of equal mass",
        of_logits(adaptive_calibration_error, PERCENT),
        when=STORED,
    ),
    Metric(
        "classwise_ece",
        "classwise_ece",
        "Class-wise ECE",
        "%, 20 bins",
        of_logits(classwise_calibration_error, PERCENT),
        when=STORED,
    ),
    Metric(
        "feature_spread",
        "feature_spread",
        "Feature spread",
        "within over between classes",
        of_features(feature_spread),
        decimals=3,
        when=STORED,
    ),
)
TRACKED = tuple(metric for metric in METRICS if metric.when != STORED)
CALIBRATION = ("top1_error", "ece", "adaptive_ece", "classwise_ece", "nll", "brier")

DOMAINS = ("cub200", "dogs", "mit67")  # of the merged dataset
DOMAIN_ACCURACIES = {
    domain: Metric(
        f"domain_accuracy_{domain}", "figure4", "Domain accuracy", "%", None, decimals=1, higher_is_better=True
    )
    for domain in DOMAINS
}
DOMAIN_ERRORS = {
    domain: Metric(f"top1_error_{domain}", "figure4", "Top-1 error of a domain's images", "%", None)
    for domain in DOMAINS
}


def all_metrics() -> dict[str, Metric]:
    """Return every metric by name, including those of single domains."""
    return {metric.name: metric for metric in (*METRICS, *DOMAIN_ACCURACIES.values(), *DOMAIN_ERRORS.values())}


def evaluate_predictions(logits, labels, features=None, domains: Sequence[str] | None = None) -> dict[str, float]:
    """Return every tracked metric by name, in the metric's unit.

    Metrics of ``LAST`` are left out if ``features`` is None. domains: the domain of each class, for the metrics of
    single domains. Raises ValueError for undefined input, see ``scores``.
    """
    metrics = [metric for metric in TRACKED if metric.when == EPOCH or features is not None]
    values = {metric.name: metric.function(logits, labels, features) for metric in metrics}
    if domains is not None:
        values |= domain_metrics(logits, labels, domains)
    return values


def evaluate_calibration(logits, labels) -> dict[str, float]:
    """Return the metrics of ``CALIBRATION`` by name, in the metric's unit. Raises ValueError for undefined input."""
    metrics = all_metrics()
    return {name: metrics[name].function(logits, labels, None) for name in CALIBRATION}
