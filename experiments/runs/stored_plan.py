"""The stored plan of an experiment: its cells and the keys of their runs.

It is RUNS_DIR/plans/<experiment>.json, so that the tracking can be rebuilt from the run folders.
"""

from pathlib import Path

from cskd.utils.errors import UserError
from cskd.utils.files import exclusive
from cskd.utils.integrity import read_json, write_json
from experiments.config.settings import StrictModel


class Cell(StrictModel):
    """One cell of a grid with all its seeds, of this and of earlier plans."""

    name: str  # dataset/architecture/method
    key: str
    order: int  # its position in tables
    comparable: bool  # whether its mean may be compared with the paper's number
    comparable_reason: str = ""  # why not; "" if comparable
    tuned: str = ""  # tuned hyper-parameters and their source; "": the recipe's hyper-parameters are used
    hyperparameter_source: str = ""  # who chose them: "paper", "ours", or "" for none
    runs: dict[int, str]  # seed -> run key


class Plan(StrictModel):
    """The cells of one experiment."""

    experiment: str
    grid: str
    title: str
    profile: str
    overrides: tuple[str, ...] = ()  # "key=value": settings changed from the recipe
    tuned: bool = False  # whether tuned hyper-parameters were requested
    cells: list[Cell]

    def save(self, runs_dir: Path) -> None:
        """Write the plan, merged with the stored plan of the same experiment."""
        path = self.path(self.experiment, runs_dir)
        with exclusive(path.with_suffix(".lock")):
            write_json(path, self._merged_with(path).model_dump(mode="json"))

    def _merged_with(self, path: Path) -> "Plan":
        """Add the stored cells and seeds. A stored cell of the same name with another key is replaced."""
        stored = {cell.name: cell for cell in load_plan(path).cells} if path.exists() else {}
        cells = []
        for cell in self.cells:
            old = stored.pop(cell.name, None)
            runs = old.runs | cell.runs if old is not None and old.key == cell.key else cell.runs
            cells.append(cell.model_copy(update={"runs": dict(sorted(runs.items()))}))
        cells += stored.values()
        return self.model_copy(update={"cells": sorted(cells, key=lambda cell: cell.order)})

    @staticmethod
    def path(experiment: str, runs_dir: Path) -> Path:
        return runs_dir / "plans" / f"{experiment}.json"


def load_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate(read_json(path))
    except (OSError, ValueError) as error:  # includes Damaged
        raise UserError(f"{path} is damaged: remove it and launch its grid again") from error


def load_plans(runs_dir: Path) -> list[Plan]:
    return [load_plan(path) for path in sorted((runs_dir / "plans").glob("*.json"))]
