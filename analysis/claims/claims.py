"""The paper's claims that are judged: reading and validating ``claims.yaml``."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.paper.published import published_numbers
from cskd.evaluate.metrics import DOMAIN_ACCURACIES, DOMAIN_ERRORS, TRACKED, all_metrics
from cskd.methods import build_method
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_yaml

CLAIMS = Path(__file__).with_name("claims.yaml")
LOWER, HIGHER = "lower", "higher"
MERGED = "merged"  # the dataset of figure 4
DOMAIN_METRICS = tuple(metric.name for metrics in (DOMAIN_ACCURACIES, DOMAIN_ERRORS) for metric in metrics.values())
FEATURE_SPREAD = "feature_spread"  # not tracked: computed from a run's predictions
JUDGED_METRICS = (*(metric.name for metric in TRACKED), *DOMAIN_METRICS, FEATURE_SPREAD)


@dataclass(frozen=True)
class Claim:
    """One comparison of two methods: ``method`` has a lower or higher (``better``) ``metric`` than ``against``.

    It is made for each of ``datasets`` with each of ``architectures``. claim: the sentence; where: the paper's table
    or figure.
    """

    id: str
    claim: str
    where: str
    metric: str
    method: str
    against: str
    better: str
    datasets: tuple[str, ...]
    architectures: tuple[str, ...]

    @property
    def decimals(self) -> int:
        return decimals_of(self.metric)

    def is_borne_out(self, effect: float) -> bool:
        """Return whether a difference method - against has the claimed sign."""
        return effect < 0 if self.better == LOWER else effect > 0


def decimals_of(metric: str) -> int:
    """Return the number of decimals of an effect on this metric."""
    return all_metrics()[metric].decimals


def load_claims(path: Path = CLAIMS) -> tuple[Claim, ...]:
    """Return the claims in the file's order. Raises UserError for an invalid file."""
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} must contain a list of claims")
    claims = []
    for number, entry in enumerate(entries, start=1):
        name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            claims.append(_claim(entry))
        except UserError as error:
            raise UserError(f"{path}, claim {name}: {error}") from None
        if sum(claim.id == claims[-1].id for claim in claims) > 1:
            raise UserError(f"{path}, claim {name}: there are two claims with this id: rename one")
    return tuple(claims)


def _claim(entry: Any) -> Claim:
    if not isinstance(entry, dict):
        raise UserError("must contain keys and values")
    keys = [field.name for field in dataclasses.fields(Claim)]
    for key in entry:
        check_choice("key", key, keys)
    missing = [key for key in keys if key not in entry]
    if missing:
        raise UserError(f"{', '.join(missing)} missing: add it")
    for key in keys:
        _check_type(key, entry[key])
    numbers = published_numbers()
    check_choice("metric", entry["metric"], JUDGED_METRICS)
    check_choice("value of better", entry["better"], (LOWER, HIGHER))
    for key in ("method", "against"):
        build_method(entry[key])  # any registered method, not only the paper's
    if entry["method"] == entry["against"]:
        raise UserError(f"{entry['method']} is compared with itself: name another method")
    for dataset in entry["datasets"]:
        check_choice("dataset", dataset, {*numbers.dataset, MERGED})
    for architecture in entry["architectures"]:
        check_choice("architecture", architecture, set(numbers.architecture))
    return Claim(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def _check_type(key: str, value: Any) -> None:
    if key in ("datasets", "architectures"):
        is_names = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
        if not is_names or len(set(value)) < len(value):
            raise UserError(f"{key} must be a list of distinct names, not {value!r}")
    elif not isinstance(value, str) or not value.strip():
        raise UserError(f"{key} must be text, not {value!r}")
