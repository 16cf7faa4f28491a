"""Read and validate ``claims.yaml``: the claims that are judged, the paper's and your own."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from analysis.paper.published import published_numbers
from cskd.evaluate.metrics import DOMAIN_ACCURACIES, DOMAIN_ERRORS, all_metrics
from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_yaml

CLAIMS = Path(__file__).with_name("claims.yaml")
OURS = "ours"  # where a claim is made that is not the paper's
MERGED = "merged"  # the dataset of figure 4
DOMAIN_METRICS = tuple(metric.name for metrics in (DOMAIN_ACCURACIES, DOMAIN_ERRORS) for metric in metrics.values())


class Claim(BaseModel, frozen=True, extra="forbid"):
    """One comparison of two methods: ``method`` has a lower or higher (``better``) ``metric`` than ``against``.

    The claim covers each of ``datasets`` with each of ``architectures``. claim: the claim as a sentence. where: the
    table or figure of the paper, or OURS. primary: its place in the sequence of primary claims, from 1; None for the
    others.
    """

    id: str
    claim: str
    where: str
    metric: str
    method: str
    against: str
    better: Literal["lower", "higher"]
    datasets: tuple[str, ...] = Field(min_length=1)
    architectures: tuple[str, ...] = Field(min_length=1)
    primary: int | None = Field(None, ge=1)

    @property
    def equivalence_margin(self) -> float | None:
        """The smallest difference that matters, in the metric's unit; None if none is fixed."""
        return all_metrics()[self.metric].equivalence_margin

    def is_borne_out(self, effect: float) -> bool:
        """Return whether a difference method - against has the claimed sign."""
        return effect < 0 if self.better == "lower" else effect > 0


def load_claims(path: Path = CLAIMS) -> tuple[Claim, ...]:
    """Return the claims in the file's order. Raises UserError for an invalid file."""
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} must contain a list of claims")
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            claim = _checked(Claim.model_validate(entry))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "entry"
            raise UserError(f"{path}, claim {name}: {key}: {problem['msg']}") from None
        except UserError as error:
            raise UserError(f"{path}, claim {name}: {error}") from None
        if claim.id in claims:
            raise UserError(f"{path}, claim {name}: there are two claims with this id: rename one")
        claims[claim.id] = claim
    return tuple(claims.values())


def _checked(claim: Claim) -> Claim:
    """Return the claim if all its names are valid. Raises UserError otherwise."""
    numbers = published_numbers()
    check_choice("metric", claim.metric, all_metrics())
    for method in {claim.method, claim.against} - {*numbers.method}:
        from cskd.methods import build_method  # noqa: PLC0415 - imports torch

        build_method(method)  # any registered method, not only the paper's
    if claim.method == claim.against:
        raise UserError(f"{claim.method} is compared with itself: name another method")
    datasets = {*numbers.dataset, MERGED}
    if claim.where == OURS:  # a dataset of your own is a recipe, which the analysis does not read
        datasets |= {*claim.datasets}
    for name in claim.datasets:
        check_choice("dataset", name, datasets)
    for name in {*claim.architectures} - {*numbers.architecture}:
        if not name.startswith("timm:") or find_spec("timm"):  # results are also read where timm is not installed
            from cskd.models import check_architecture  # noqa: PLC0415 - imports torch

            check_architecture(name)
    for kind, names in (("dataset", claim.datasets), ("architecture", claim.architectures)):
        if len(set(names)) < len(names):
            raise UserError(f"{kind}s: a name is given twice: {', '.join(names)}")
    return claim
