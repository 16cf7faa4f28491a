"""The metric registry: every metric of a test or validation set, with how it is named, shown and computed.

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
    short_name: the name in file names and of a tuning objective.
    title, unit: the heading of its table is ``title (unit)``.
    function: ``(logits (N, C), labels (N,), features (N, D)) -> float`` in the metric's unit. Features are given to
        metrics of ``LAST`` only.
    when: ``EPOCH``: after every epoch; ``LAST``: after the last epoch, since it is slow; ``STORED``: by the analysis,
        from stored predictions.
    """

    name: str
    short_name: str
    title: str
    unit: str
    function: Callable
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
        """The column of its value at the best test epoch; only metrics of ``EPOCH`` have one."""
        return f"best/{self.name}"

    @property
    def at_best_epoch(self) -> bool:
        return self.when == EPOCH


def _percent(function: Callable[..., float]) -> Callable[..., float]:
    return lambda logits, labels, features: 100 * function(logits, labels)


METRICS = (
    Metric("top1_error", "error", "Top-1 error", "%", lambda z, y, _: 100 * top_k_error(z, y, 1)),
    Metric("top5_error", "top5_error", "Top-5 error", "%", lambda z, y, _: 100 * top_k_error(z, y, 5)),
    Metric("ece", "ece", "ECE", "%, 20 bins", _percent(expected_calibration_error)),
    Metric(
        "nll",
        "nll",
        "Negative log-likelihood",
        "nats",
        lambda z, y, _: negative_log_likelihood(z, y),
        decimals=3,
    ),
    Metric("brier", "brier", "Brier score", "0 to 2", lambda z, y, _: brier_score(z, y), decimals=3),
    Metric(
        "recall_at_1",
        "recall_at_1",
        "R@1",
        "%",
        lambda z, y, features: 100 * recall_at_1(features, y),
        higher_is_better=True,
        when=LAST,
    ),
    Metric(
        "adaptive_ece",
        "adaptive_ece",
        "Adaptive ECE",
        "%, 20 bins of equal mass",
        _percent(adaptive_calibration_error),
        when=STORED,
    ),
    Metric(
        "classwise_ece",
        "classwise_ece",
        "Class-wise ECE",
        "%, 20 bins",
        _percent(classwise_calibration_error),
        when=STORED,
    ),
    Metric(
        "feature_spread",
        "feature_spread",
        "Feature spread",
        "within over between classes",
        lambda z, y, features: feature_spread(features, y),
        decimals=3,
        when=STORED,
    ),
)
TRACKED = tuple(metric for metric in METRICS if metric.when != STORED)


DOMAINS = ("cub200", "dogs", "mit67")  # of the merged dataset


def _domain_metric(name: str, title: str, domain: str, **options) -> Metric:
    """A metric of one domain's images; ``scores.domain_metrics`` computes those of all domains at once."""

    def missing(logits, labels, features) -> float:
        raise ValueError(f"{name}_{domain} needs the domain of each class: use scores.domain_metrics")

    return Metric(f"{name}_{domain}", "figure4", title, "%", missing, **options)


DOMAIN_ACCURACIES = {
    domain: _domain_metric("domain_accuracy", "Domain accuracy", domain, decimals=1, higher_is_better=True)
    for domain in DOMAINS
}
DOMAIN_ERRORS = {domain: _domain_metric("top1_error", "Top-1 error of a domain's images", domain) for domain in DOMAINS}


def all_metrics() -> dict[str, Metric]:
    """Every metric by name, those of single domains included."""
    return {metric.name: metric for metric in (*METRICS, *DOMAIN_ACCURACIES.values(), *DOMAIN_ERRORS.values())}


def evaluate_predictions(logits, labels, features=None, domains: Sequence[str] | None = None) -> dict[str, float]:
    """Return every tracked metric by name, in the metric's unit.

    Metrics of ``LAST`` need ``features`` and are left out without them. domains: the domain of each class, for
    ``scores.domain_metrics``. Raises ValueError for undefined input, see ``scores``.
    """
    metrics = [metric for metric in TRACKED if metric.when == EPOCH or features is not None]
    values = {metric.name: metric.function(logits, labels, features) for metric in metrics}
    if domains is not None:
        values |= domain_metrics(logits, labels, domains)
    return values
