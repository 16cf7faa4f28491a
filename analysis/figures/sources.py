"""What figures are drawn from: the finished runs of a dataset and architecture, and the images behind them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.load.pools import Pool
from analysis.load.store import Store
from analysis.stats.evaluation import Evaluation
from cskd.data.store import ImageSplit, open_dataset
from cskd.evaluate.predictions import Predictions
from cskd.utils.errors import UserError


class NotDrawn(Exception):
    """What a figure lacks, in a few words."""


@dataclass(frozen=True)
class Group:
    """All methods of a pool on one dataset with one architecture."""

    pool: Pool
    dataset: str
    architecture: str
    store: Store
    evaluations: dict[str, Evaluation]
    cache: Path

    @property
    def file(self) -> str:
        """What its figures' names end with."""
        return f"{self.dataset}-{self.architecture}"

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.architecture} ({self.pool.name})"

    def methods(self) -> list[str]:
        """Those with finished runs, in the pool's order."""
        cells = self.pool.cells
        own = cells[(cells.dataset == self.dataset) & (cells.architecture == self.architecture)]
        return [method for method in own.method if len(self.runs(method))]

    def runs(self, method: str) -> pd.DataFrame:
        """The finished runs, by seed."""
        return self.pool.runs_of(self.dataset, self.architecture, method)

    def missing(self, method: str) -> str:
        """Why there is nothing of a method."""
        if len(self.runs(method)):
            return f"{method} is not evaluated"
        runs = self.pool.runs
        own = (runs.dataset == self.dataset) & (runs.architecture == self.architecture) & (runs.method == method)
        return f"{method} has no finished run" if own.any() else f"{method} was not run"

    def evaluated(self, method: str) -> list[Evaluation]:
        """The evaluations of its finished runs, by seed. Raises NotDrawn for none."""
        keys = self.runs(method).run_key
        found = [self.evaluations[key] for key in keys if key in self.evaluations]
        if not found:
            raise NotDrawn(self.missing(method))
        return found

    def require(self, methods: tuple[str, ...]) -> None:
        """Raises NotDrawn unless each has a finished run."""
        missing = [self.missing(method) for method in methods if not len(self.runs(method))]
        if missing:
            raise NotDrawn(", ".join(missing))

    def of_one_seed(self, methods: list[str]) -> tuple[int, dict[str, pd.Series]]:
        """The lowest seed that is finished in all of them, and its run of each method. Raises NotDrawn for none."""
        runs = {method: self.runs(method).set_index("seed", drop=False) for method in methods}
        shared = set.intersection(*(set(frame.index) for frame in runs.values()))
        if not shared:
            raise NotDrawn(f"{', '.join(methods)} have no seed in common")
        seed = min(shared)
        return seed, {method: frame.loc[seed] for method, frame in runs.items()}

    def predictions(self, runs: dict[str, pd.Series]) -> dict[str, Predictions]:
        """Those of each run, of the same images. Raises NotDrawn for others, UnusableRun for none."""
        found = {method: self.store.load_predictions(run, self.cache) for method, run in runs.items()}
        first, *others = found.values()
        if any(each.labels.tolist() != first.labels.tolist() for each in others):
            raise NotDrawn(f"the runs of {', '.join(found)} were tested on different images")
        return found


def groups(pool: Pool, store: Store, evaluations: dict[str, Evaluation], cache: Path) -> Iterator[Group]:
    """The pool's datasets and architectures, in its order."""
    for dataset, architecture in pool.cells[["dataset", "architecture"]].drop_duplicates().itertuples(index=False):
        yield Group(pool, dataset, architecture, store, evaluations, cache)


def class_names(predictions: Predictions) -> tuple[str, ...]:
    """Their own, or numbers where a run of an earlier version kept none."""
    return predictions.classes or tuple(f"class {number}" for number in range(predictions.logits.shape[1]))


def prepared_test_split(digest: str, data_dir: Path) -> ImageSplit | None:
    """The test images of the dataset of that digest, of those prepared below ``data_dir``; None if it is not there."""
    for about in sorted((data_dir / "prepared").glob("*/dataset.json")):
        try:
            dataset = open_dataset(about.parent)
        except UserError:  # damaged: as good as not there, which whoever asks has to say anyway
            continue
        if dataset.digest == digest:
            return dataset.test
    return None
