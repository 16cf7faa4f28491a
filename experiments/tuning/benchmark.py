"""Samplers and the pruner on a recorded surface: what a study would have found, without training anything."""

import csv
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import rankdata

from cskd.errors import UserError, first_line
from cskd.randomness import derived_seed
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.samplers import SAMPLERS
from experiments.tuning.space import Point
from experiments.tuning.study import PRUNER_STARTUP

AFTER = "error_e"  # error_e20: the validation error after 20 epochs
START = ({"temperature": 4.0, "lambda_cls": 1.0}, {"temperature": 4.0, "lambda_cls": 3.0})  # the paper's settings


@dataclass(frozen=True)
class Surface:
    """Validation metrics of real trials on a full grid of hyper-parameters, with the same seeds at every point.

    nodes: the grid's values of each parameter, ascending. values: (n1, n2, ..., columns, seeds); error, ECE and
    ``error_e<k>`` in percent, NLL in nats. milestone: epochs after which the learning rate first dropped.
    """

    nodes: dict[str, tuple[float, ...]]
    columns: tuple[str, ...]
    seeds: tuple[int, ...]
    values: np.ndarray
    milestone: int

    @property
    def epochs(self) -> list[int]:
        """The k of the columns ``error_e<k>``, ascending: the last is the length of a run."""
        return _epochs(self.columns)

    @cached_property
    def means(self) -> np.ndarray:
        """(n1, n2, ..., columns): means over the seeds."""
        return self.values.mean(axis=-1)

    def best(self, column: str) -> float:
        """The lowest true value. Between the grid's points, interpolation finds none that is lower."""
        return float(self.means[..., self.columns.index(column)].min())

    def true_values(self, point: Point) -> dict[str, float]:
        """Every column's mean over the seeds, interpolated linearly in the parameters' logarithms."""
        found = self._interpolator([np.log(point[name]) for name in self.nodes])[0]
        return dict(zip(self.columns, map(float, found), strict=True))

    def observe(self, point: Point, seed: int) -> dict[str, float]:
        """What one run would have measured: the true values and what the seed of that index adds to them.

        That is taken from the nearest point of the grid, and scaled to the seeds' std (ddof=1). One seed adds
        nothing: there is no telling how much of it is noise.
        """
        true = self.true_values(point)
        count = len(self.seeds)
        if count == 1:
            return true
        nearest = tuple(
            int(np.abs(np.log(values) - np.log(point[name])).argmin()) for name, values in self.nodes.items()
        )
        residuals = (self.values[nearest][:, seed] - self.means[nearest]) * np.sqrt(count / (count - 1))
        return {name: true[name] + float(residual) for name, residual in zip(self.columns, residuals, strict=True)}

    @cached_property
    def _interpolator(self) -> RegularGridInterpolator:
        return RegularGridInterpolator([np.log(values) for values in self.nodes.values()], self.means)


def load_surface(path: Path) -> Surface:
    """Read a surface: a CSV with the parameters, ``seed``, error, nll, ece, milestone and ``error_e<k>``.

    Raises UserError for a file that is missing or is not that, or whose points are no full grid.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            names = header[: header.index("seed")] if "seed" in header else []
            columns = (*OBJECTIVES, *(name for name in header if name.startswith(AFTER)))
            missing = [name for name in ("seed", *columns, "milestone") if name not in header]
            if missing or not names or len(_epochs(columns)) < 2:
                raise UserError(
                    f"{path} needs the columns <parameters>, seed, {', '.join(OBJECTIVES)}, milestone and {AFTER}<k> "
                    f"of two k or more; missing: {', '.join(missing) or 'parameters or k'}"
                )
            rows = [_numbers(path, reader.line_num, row, (*names, "seed", *columns, "milestone")) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give the CSV of a recorded surface") from error
    return _surface(path, rows, names, columns)


def _surface(path: Path, rows: list[dict[str, float]], names: list[str], columns: tuple[str, ...]) -> Surface:
    nodes = {name: tuple(sorted({row[name] for row in rows})) for name in names}
    seeds = tuple(sorted({int(row["seed"]) for row in rows}))
    shape = tuple(map(len, nodes.values()))
    for name, values in nodes.items():
        if len(values) < 2 or values[0] <= 0:
            raise UserError(f"{path}: {name} needs two values or more, all above 0: they are interpolated in its log")
    values = np.full((*shape, len(columns), len(seeds)), np.nan)
    for row in rows:
        place = tuple(nodes[name].index(row[name]) for name in names)
        values[place][:, seeds.index(int(row["seed"]))] = [row[column] for column in columns]
    wanted = int(np.prod(shape)) * len(seeds)
    if np.isnan(values).any() or len(rows) != wanted:
        grid = " x ".join(map(str, shape))
        raise UserError(f"{path} is not a full grid: {grid} points of {len(seeds)} seeds in {len(rows)} rows")
    milestones = {row["milestone"] for row in rows}
    if len(milestones) > 1 or not 0 < min(milestones) < _epochs(columns)[-1]:
        raise UserError(f"{path}: milestone must be the same epoch in all rows, before the last one")
    return Surface(nodes, columns, seeds, values, int(min(milestones)))


def _numbers(path: Path, line: int, row: dict[str, str], names: tuple[str, ...]) -> dict[str, float]:
    try:
        numbers = {name: float(row[name] or "") for name in names}
    except ValueError as error:
        raise UserError(f"{path}, line {line}: {first_line(error)}") from error
    if not np.isfinite(list(numbers.values())).all():
        raise UserError(f"{path}, line {line}: every value must be a finite number")
    return numbers


def _epochs(columns: tuple[str, ...]) -> list[int]:
    endings = [name.removeprefix(AFTER) for name in columns if name.startswith(AFTER)]
    return sorted(int(ending) for ending in endings if ending.isdecimal())


@dataclass(frozen=True)
class Simulation:
    """One study on a surface. regrets: (trials,), of what it would recommend after each; epochs: (trials,), trained."""

    regrets: np.ndarray
    epochs: np.ndarray


def simulate(
    surface: Surface,
    objective: str,
    sampler: str,
    *,
    trials: int,
    workers: int = 1,
    repeat: int = 0,
    pruned: bool = False,
) -> Simulation:
    """A study of ``trials`` told trials; ``workers`` are asked for before the oldest is told.

    Regret: the true value of the point with the lowest observation, minus the best true value. A sampler is made
    for every ask and seeded by (repeat, trial number), as in a real study; so is the noise, which is the same for
    all samplers. pruned: let the median pruner look once the learning rate has dropped.
    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=PRUNER_STARTUP, n_warmup_steps=surface.milestone)
    study = optuna.create_study(pruner=pruner if pruned else optuna.pruners.NopPruner())
    ranges = {name: FloatDistribution(values[0], values[-1], log=True) for name, values in surface.nodes.items()}
    for point in starting_points(surface):
        study.enqueue_trial(point)
    best = surface.best(objective)
    lowest, regret = np.inf, np.inf
    regrets, epochs = [], []
    asked: deque[optuna.Trial] = deque()
    for number in range(trials + workers - 1):
        study.sampler = SAMPLERS[sampler](derived_seed(repeat, "sampler", number) % 2**32)
        trial = study.ask()
        for name, distribution in ranges.items():
            trial.suggest_float(name, distribution.low, distribution.high, log=True)
        asked.append(trial)
        if len(asked) < workers:
            continue
        trial = asked.popleft()
        observed = surface.observe(trial.params, derived_seed(repeat, "noise", trial.number) % len(surface.seeds))
        epochs.append(_train(trial, surface, observed))
        if epochs[-1] < surface.epochs[-1]:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, observed[objective])
            if observed[objective] < lowest:
                lowest = observed[objective]
                regret = surface.true_values(trial.params)[objective] - best
        regrets.append(regret)
    return Simulation(np.array(regrets), np.array(epochs))


def starting_points(surface: Surface) -> list[Point]:
    """What every study tries first: the paper's settings, where the surface has them."""
    return [
        point
        for point in START
        if point.keys() == surface.nodes.keys()
        and all(values[0] <= point[name] <= values[-1] for name, values in surface.nodes.items())
    ]


def _train(trial: optuna.Trial, surface: Surface, observed: dict[str, float]) -> int:
    """Epochs that the trial is trained for: all, unless the pruner stops it after the drop."""
    for epoch in surface.epochs[:-1]:
        if epoch > surface.milestone:
            trial.report(observed[f"{AFTER}{epoch}"], epoch)
            if trial.should_prune():
                return epoch
    return surface.epochs[-1]


def rank_correlations(surface: Surface) -> list[dict]:
    """Spearman's, over the grid's points, between the error after k epochs and after the last.

    A row a k: ``epochs``, whether that is ``after_drop``, ``of_means`` (over the seeds), ``of_seeds`` (each alone).
    """
    last = surface.columns.index(f"{AFTER}{surface.epochs[-1]}")
    rows = []
    for epoch in surface.epochs[:-1]:
        column = surface.columns.index(f"{AFTER}{epoch}")
        rows.append({
            "epochs": epoch,
            "after_drop": epoch > surface.milestone,
            "of_means": _spearman(surface.means[..., column], surface.means[..., last]),
            "of_seeds": [
                _spearman(surface.values[..., column, seed], surface.values[..., last, seed])
                for seed in range(len(surface.seeds))
            ],
        })  # fmt: skip
    return rows


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """NaN where one of the two is constant, as errors at chance level can be."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
