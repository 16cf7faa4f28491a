"""Tuned hyper-parameters as YAML: one file per dataset and method, one entry per profile and architecture.

Grids use them with TUNED=1 only.
"""

from pathlib import Path

import yaml

from cskd.utils.cli import env_dir, runs_dir
from cskd.utils.errors import UserError
from cskd.utils.files import atomic_write, exclusive, write_errors
from cskd.utils.yaml import read_mapping
from experiments.config.settings import StrictModel, validated

TUNED = Path(__file__).parent.parent / "recipes" / "tuned"
HEADER = "# Written by 'make tune'; used by grids with TUNED=1 only.\n"


class TunedParameters(StrictModel):
    """The best trial of a study with its source."""

    dataset: str
    method: str
    profile: str
    architecture: str
    parameters: dict[str, float]
    objective: str
    value: float  # of the objective on the validation split
    recipe_parameters: dict[str, float]
    recipe_value: float | None  # of the recipe's setting in the same study; None: not tried
    study: str
    trial: int
    trials: int  # number of complete trials
    seeds: list[int]  # used for tuning
    split_digest: str  # of the validation split's indices
    data_digest: str
    git_commit: str
    git_dirty: bool | None  # None: unknown
    source_digest: str = ""  # of the code
    date: str
    teacher: str = ""  # name of the teacher's run; "": without a teacher
    teacher_run_key: str = ""

    @property
    def entry(self) -> str:
        return f"{self.profile}/{self.architecture}"

    @property
    def code(self) -> str:
        """Return the code's commit, such as "commit 0123456789ab (dirty)", or its digest if the commit is unknown."""
        if self.git_commit == "unknown":
            return f"sources {self.source_digest or 'unknown'}"
        return f"commit {self.git_commit[:12]}{' (dirty)' if self.git_dirty else ''}"

    def summary(self) -> str:
        """Return the values and their source in a line."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.parameters.items())
        best_of = f"lowest validation {self.objective} of {self.trials} trials"
        return f"{values} ({best_of}, {self.study}, {self.date}, {self.code})"


def tuned_dir() -> Path:
    return env_dir("TUNED_DIR", str(TUNED))


def tuned_file(dataset: str, method: str) -> Path:
    return tuned_dir() / f"{dataset}-{method}.yaml"


def save(parameters: TunedParameters) -> Path:
    """Add an entry to its file, or replace it, and return the file."""
    path = tuned_file(parameters.dataset, parameters.method)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(runs_dir() / "studies" / "tuned.lock"):
        entries = _load(path) if path.exists() else {}
        entries[parameters.entry] = parameters
        content = {name: entry.model_dump(exclude_defaults=True) for name, entry in sorted(entries.items())}
        text = HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        with atomic_write(path) as file:
            file.write(text.encode())
    return path


def load_all() -> list[TunedParameters]:
    """Return all entries of all files, sorted by dataset and method."""
    entries = [entry for path in tuned_dir().glob("*.yaml") for entry in _load(path).values()]
    return sorted(entries, key=lambda entry: (entry.dataset, entry.method, entry.entry))


def find(dataset: str, method: str, profile: str, architecture: str) -> TunedParameters | None:
    """Return the tuned values of a cell, None if there are none."""
    path = tuned_file(dataset, method)
    return _load(path).get(f"{profile}/{architecture}") if path.exists() else None


def _load(path: Path) -> dict[str, TunedParameters]:
    entries = {}
    for name, entry in read_mapping(path).items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {name} must be a mapping")
        entries[name] = validated(TunedParameters, entry, f"{path} ({name})")
    return entries
