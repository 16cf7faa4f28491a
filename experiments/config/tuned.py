"""What tuning has found, as YAML: one file a dataset and method, one entry a profile and architecture.

Grids use it only on request (TUNED=1), and their tables say so.
"""

from pathlib import Path
from typing import Any

import yaml

from cskd.utils.cli import env_dir, runs_dir
from cskd.utils.errors import UserError
from cskd.utils.files import atomic_write, exclusive, write_errors
from experiments.config.recipe import RECIPES, StrictModel, read_yaml, validated

HEADER = "# Written by 'make tune'; used by grids with TUNED=1 only.\n"


class TunedParameters(StrictModel):
    """The best trial of a study, and where it comes from."""

    parameters: dict[str, float]
    objective: str
    value: float  # of the objective, on the validation split
    recipe_parameters: dict[str, float]  # the recipe's own setting, for comparison ...
    recipe_value: float | None  # ... and its value in the same study; None: not tried
    study: str
    trial: int
    trials: int  # complete ones
    seeds: list[int]  # that were tuned on
    split_digest: str  # of the validation split's indices
    data_digest: str
    git_commit: str
    git_dirty: bool
    date: str
    teacher: str = ""  # name and run key of the run that taught the trials; "": they have no teacher

    def message(self) -> str:
        """In a line: the values, and where they were found."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.parameters.items())
        commit = self.git_commit[:12] + (" (dirty)" if self.git_dirty else "")
        best_of = f"lowest validation {self.objective} of {self.trials} trials"
        return f"{values} ({best_of}, {self.study}, {self.date}, {commit})"


def tuned_dir() -> Path:
    return env_dir("TUNED_DIR", str(RECIPES / "tuned"))


def tuned_file(dataset: str, method: str) -> Path:
    return tuned_dir() / f"{dataset}-{method}.yaml"


def tuned_methods(dataset: str) -> list[str]:
    """The methods, sums included, that there is a file of for a dataset."""
    return sorted(path.stem.removeprefix(f"{dataset}-") for path in tuned_dir().glob(f"{dataset}-*.yaml"))


def entry_name(profile: str, architecture: str) -> str:
    return f"{profile}/{architecture}"


def save(dataset: str, method: str, profile: str, architecture: str, found: TunedParameters) -> Path:
    """Write an entry, in the place of an earlier one of the same profile and architecture."""
    path = tuned_file(dataset, method)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(runs_dir() / "studies" / "tuned.lock"):
        content = read_yaml(path) if path.exists() else {}
        content[entry_name(profile, architecture)] = found.model_dump(mode="json", exclude_defaults=True)
        content = dict(sorted(content.items()))
        text = HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        with atomic_write(path) as file:
            file.write(text.encode())
    return path


def load(dataset: str, method: str) -> dict[str, TunedParameters]:
    """The entries of a file by "profile/architecture"; none where there is no file."""
    path = tuned_file(dataset, method)
    if not path.exists():
        return {}
    return {
        name: validated(TunedParameters, _mapping(entry, path), f"{path} ({name})")
        for name, entry in read_yaml(path).items()
    }


def find(dataset: str, method: str, profile: str, architecture: str) -> TunedParameters:
    """The tuned values for a cell. Raises UserError, with the command that finds them, where there are none."""
    found = load(dataset, method).get(entry_name(profile, architecture))
    if found is None:
        message = "" if profile == "paper" else f" PROFILE={profile}"
        raise UserError(
            f"nothing tuned for {dataset}, {method}, profile {profile}, {architecture}: "
            f"make tune DATASET={dataset} METHOD={method}{message} ARCHITECTURE={architecture}"
        )
    return found


def _mapping(entry: Any, path: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{path} must map profile/architecture to what was found")
    return entry
