"""The metrics that have a table, by the names they are tracked under."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric of the test set."""

    name: str  # tracked as test/<name> (every epoch or only the last) and best/<name>
    title: str
    file: str  # what its table's files are called
    decimals: int = 2
    at_best_epoch: bool = True  # whether it is computed at every epoch, so that the best one has it
    higher_is_better: bool = False

    @property
    def last(self) -> str:
        return f"test/{self.name}"

    @property
    def best(self) -> str:
        return f"best/{self.name}"


METRICS = (
    Metric("top1_error", "Top-1 error (%)", "error"),
    Metric("top5_error", "Top-5 error (%)", "top5_error"),
    Metric("ece", "ECE (%, 20 bins)", "ece"),
    Metric("nll", "Negative log-likelihood (nats)", "nll", decimals=3),
    Metric("brier", "Brier score (0 to 2)", "brier", decimals=3),
    Metric("recall_at_1", "R@1 (%)", "recall_at_1", at_best_epoch=False, higher_is_better=True),
)
