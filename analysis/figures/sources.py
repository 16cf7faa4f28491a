"""The data of figures: the finished runs of a dataset and architecture, and the images behind them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.load.frames import file_part, format_seeds
from analysis.load.pools import Pool
from analysis.load.store import Store
from cskd.data.splits import Split
from cskd.data.store import open_dataset
from cskd.evaluate.evaluation import Evaluation, Evaluations
from cskd.evaluate.predictions import Predictions
from cskd.utils.errors import UserError

Note = Callable[[str], None]
MAX_NAME_LENGTH = 24  # characters of a class name
DOMAIN = re.compile(r"^[\w-]+/(?=.)")  # the prefix of a merged dataset's class names


class NotDrawn(Exception):
    """A figure cannot be drawn; the message says why."""


@dataclass(frozen=True)
class Group:
    """All methods of a pool on one dataset with one architecture. evaluations: by run key."""

    pool: Pool
    dataset: str
    architecture: str
    store: Store
    evaluations: Evaluations
    cache: Path
    data_dir: Path

    @property
    def file(self) -> str:
        """The end of its figures' file names."""
        return file_part(f"{self.dataset}-{self.architecture}")

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.architecture} ({self.pool.title})"

    def methods(self) -> list[str]:
        """Return the methods with finished runs, in the pool's order."""
        methods = self.pool.methods_on(self.dataset, self.architecture)
        return [method for method in methods if len(self.runs(method))]

    def runs(self, method: str) -> pd.DataFrame:
        """Return the finished runs, by seed."""
        return self.pool.runs_of(self.dataset, self.architecture, method)

    def missing(self, method: str) -> str:
        """Return why a method has no data."""
        if len(self.runs(method)):
            return f"{method} is not evaluated"
        runs = self.pool.runs
        begun = (runs.dataset == self.dataset) & (runs.architecture == self.architecture) & (runs.method == method)
        return f"{method} has no finished run" if begun.any() else f"{method} was not run"

    def evaluated(self, method: str) -> list[Evaluation]:
        """Return the evaluations of the finished runs, by seed. Raises NotDrawn if there is none."""
        evaluated = [self.evaluations[key] for key in self.runs(method).run_key if key in self.evaluations]
        if not evaluated:
            raise NotDrawn(self.missing(method))
        return evaluated

    def all_evaluated(self, note: Note) -> dict[str, list[Evaluation]]:
        """Return the evaluations of each method that has any; note the others with finished runs."""
        evaluated = {}
        for method in self.methods():
            try:
                evaluated[method] = self.evaluated(method)
            except NotDrawn as error:
                note(str(error))
        return evaluated

    def evaluated_seeds(self, methods: Iterable[str]) -> str:
        """Return "seeds 0\N{EN DASH}4", or "seeds 0\N{EN DASH}4 or seed 0" if the methods have different seeds."""
        runs = map(self.runs, methods)
        return " or ".join(dict.fromkeys(format_seeds(of.seed[of.run_key.isin(self.evaluations)]) for of in runs))

    def require(self, *methods: str) -> None:
        """Raise NotDrawn unless each method has a finished run."""
        missing = [self.missing(method) for method in methods if not len(self.runs(method))]
        if missing:
            raise NotDrawn(", ".join(missing))

    def predictions(self, methods: list[str]) -> tuple[int, dict[str, pd.Series], dict[str, Predictions]]:
        """Return the lowest common seed, its run of each method, and the predictions of these runs.

        Raises NotDrawn if there is no common seed or if the test images differ, UnusableRun for missing predictions.
        """
        by_seed = {method: self.runs(method).set_index("seed", drop=False) for method in methods}
        common = set.intersection(*(set(runs.index) for runs in by_seed.values()))
        if not common:
            raise NotDrawn(f"{', '.join(methods)} have no seed in common")
        seed = min(common)
        runs = {method: frame.loc[seed] for method, frame in by_seed.items()}
        predictions = {method: self.store.load_predictions(run, self.cache) for method, run in runs.items()}
        first, *others = predictions.values()
        if any(other.labels.tolist() != first.labels.tolist() for other in others):
            raise NotDrawn(f"the runs of {', '.join(predictions)} were tested on different images")
        return seed, runs, predictions


def groups(pool: Pool, store: Store, evaluations: Evaluations, cache: Path, data_dir: Path) -> Iterator[Group]:
    """Yield the pool's datasets and architectures, in its order."""
    for dataset, architecture in pool.groups:
        yield Group(pool, dataset, architecture, store, evaluations, cache, data_dir)


def class_names(predictions: Predictions) -> list[str]:
    """Return readable class names, or numbers if they are unknown."""
    numbers = (f"class {number}" for number in range(predictions.logits.shape[1]))
    return list(map(readable, predictions.classes or numbers))


def readable(name: str) -> str:
    """Return a class name as text: ``cub200/Black_footed_Albatross`` becomes ``Black footed Albatross``.

    Returns the first of several names (TinyImageNet's ``goldfish, Carassius auratus``); long names are cut.
    """
    text = " ".join(DOMAIN.sub("", name).split(", ")[0].replace("_", " ").split()) or name
    return text if len(text) <= MAX_NAME_LENGTH else text[: MAX_NAME_LENGTH - 1] + "…"


def prepared_test_split(digest: str, data_dir: Path) -> Split | None:
    """Return the test images of the prepared dataset with this digest, or None."""
    for description in sorted((data_dir / "prepared").glob("*/dataset.json")):
        try:
            dataset = open_dataset(description.parent)
        except UserError:  # skip a damaged dataset
            continue
        if dataset.digest == digest:
            return dataset.test
    return None
