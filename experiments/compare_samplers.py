"""Compare the samplers of make tune, and its pruner, on a recorded surface of real trials; nothing is trained.

The CSV has a full grid of hyper-parameters (all columns before seed) with the same seeds at every point, their
error, nll, ece (validation, last epoch), milestone, and error_e<k> after k epochs. Regret is the true value (mean
over the seeds, interpolated) of the point that a study recommends, minus the lowest one of the grid.
"""

import argparse
import csv
import io
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cskd import cli
from cskd.files import writing, written_aside
from cskd.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, save_figure
from experiments.tuning.benchmark import (
    Simulation,
    Surface,
    load_surface,
    rank_correlations,
    simulate,
    starting_points,
)
from experiments.tuning.objectives import OBJECTIVES, TITLES
from experiments.tuning.samplers import DEFAULT_SAMPLER, SAMPLERS

COLORS = dict(zip(SAMPLERS, (BLUE, VERMILION, BLACK, GREEN, PURPLE, ORANGE), strict=False))
PRUNED = "error"  # the objective whose values during training are recorded
OFF_TERMINAL = 100  # columns where there is no terminal to ask

Study = tuple[str, str, int, bool]  # objective, sampler, workers, pruned
Results = dict[Study, list[Simulation]]  # a simulation a repeat


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m experiments.compare_samplers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("surface", type=Path, metavar="SURFACE.csv")
    parser.add_argument("--trials", type=cli.positive, nargs="+", default=[20, 40], help="of a study (default 20 40)")
    parser.add_argument("--repeats", type=cli.positive, default=50, help="of every study (default %(default)s)")
    parser.add_argument("--workers", type=cli.positive, nargs="+", default=[1, 4], help="trials at once (default 1 4)")
    parser.add_argument(
        "--processes", type=cli.positive, default=os.cpu_count(), help="of this command; they change no number"
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=OFF_TERMINAL)
    surface = load_surface(options.surface)
    trials, workers = sorted(set(options.trials)), sorted(set(options.workers))
    folder = options.results_dir / "samplers"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    console.print(_told(options.surface, surface), soft_wrap=True, markup=False)

    studies = [(*study, False) for study in product(OBJECTIVES, SAMPLERS, workers)]
    studies += [(PRUNED, DEFAULT_SAMPLER, count, True) for count in workers]
    results = {}
    for study, simulations in _simulated(surface, studies, trials[-1], options.repeats, options.processes, console):
        results[study] = simulations

    regrets = _regret_rows(results, trials)
    _save(folder / "regret.csv", regrets)
    save_figure(_figure(results, workers), folder / "regret.png")
    correlations = rank_correlations(surface)
    _save(folder / "correlation.csv", _correlation_rows(surface, correlations))
    prunings = _pruning_rows(results, workers, trials, surface.epochs[-1])
    _save(folder / "pruning.csv", prunings)
    console.print(_regret_table(regrets, options.repeats), _correlation_table(correlations, len(surface.seeds)))
    console.print(_pruning_table(prunings, surface.milestone))
    console.print(f"Written to {folder}: regret.csv, regret.png, correlation.csv, pruning.csv", soft_wrap=True)
    return 0


def _told(path: Path, surface: Surface) -> str:
    grid = " x ".join(f"{len(values)} {name}" for name, values in surface.nodes.items())
    start = starting_points(surface)
    seeds = f"{len(surface.seeds)} seeds"
    if len(surface.seeds) == 1:
        seeds = "1 seed (nothing is known of its noise: simulated without)"
    first = f"{len(start)} starting points" if start else "no starting points"
    return f"{path}: {grid}, {seeds}, {surface.epochs[-1]} epochs; {first}"


def _simulated(
    surface: Surface, studies: list[Study], trials: int, repeats: int, processes: int, console: Console
) -> Iterator[tuple[Study, list[Simulation]]]:
    """Every study with all its repeats, in order. A bar on a terminal, a line a study elsewhere."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("studies, left"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the new processes: a GP on few points is slower with more
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        futures = {
            (study, repeat): pool.submit(_repeat, surface, study, trials, repeat)
            for study, repeat in product(studies, range(repeats))
        }
        with progress:
            bar = progress.add_task("simulating", total=len(futures))
            for study in studies:
                name = _name(study)
                progress.update(bar, description=name)
                simulations = []
                for repeat in range(repeats):
                    simulations.append(futures[study, repeat].result())
                    progress.advance(bar)
                if not console.is_terminal:
                    console.print(f"{name}: {repeats} studies done")
                yield study, simulations
    finally:
        pool.shutdown(cancel_futures=True)


def _repeat(surface: Surface, study: Study, trials: int, repeat: int) -> Simulation:
    objective, sampler, workers, pruned = study
    return simulate(surface, objective, sampler, trials=trials, workers=workers, repeat=repeat, pruned=pruned)


def _name(study: Study) -> str:
    objective, sampler, workers, pruned = study
    return f"{objective}, {sampler}, {workers} worker{'s' * (workers > 1)}{', pruned' * pruned}"


def _regrets(simulations: list[Simulation]) -> np.ndarray:
    """(repeats, trials)."""
    return np.stack([simulation.regrets for simulation in simulations])


def _error_of_mean(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN of one value."""
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _regret_rows(results: Results, trials: list[int]) -> list[dict]:
    rows = []
    for (objective, sampler, workers, pruned), simulations in results.items():
        for count in trials if not pruned else ():
            regrets = _regrets(simulations)[:, count - 1]
            rows.append({
                "objective": objective,
                "sampler": sampler,
                "workers": workers,
                "trials": count,
                "mean_regret": regrets.mean(),
                "standard_error": _error_of_mean(regrets),
                "median_regret": np.median(regrets),
                "repeats": len(regrets),
            })  # fmt: skip
    # What is to be compared stands together.
    return sorted(rows, key=lambda row: (list(OBJECTIVES).index(row["objective"]), row["workers"], row["trials"]))


def _pruning_rows(results: Results, workers: list[int], trials: list[int], epochs: int) -> list[dict]:
    rows = []
    for count, number in product(workers, trials):
        simulations = results[PRUNED, DEFAULT_SAMPLER, count, True]
        without = _regrets(results[PRUNED, DEFAULT_SAMPLER, count, False])[:, number - 1]
        regrets = _regrets(simulations)[:, number - 1]
        trained = np.stack([simulation.epochs[:number] for simulation in simulations])
        rows.append({
            "objective": PRUNED,
            "sampler": DEFAULT_SAMPLER,
            "workers": count,
            "trials": number,
            "trials_pruned_percent": 100 * (trained < epochs).mean(),
            "epochs_saved_percent": 100 * (1 - trained.mean() / epochs),
            "mean_regret": regrets.mean(),
            "standard_error": _error_of_mean(regrets),
            "mean_regret_unpruned": without.mean(),
            "standard_error_unpruned": _error_of_mean(without),
            "repeats": len(regrets),
        })  # fmt: skip
    return rows


def _correlation_rows(surface: Surface, correlations: list[dict]) -> list[dict]:
    rows = []
    for one in correlations:
        said = {"epochs": one["epochs"], "learning_rate": _drop(one)}
        rows.append({**said, "seed": "mean", "spearman": one["of_means"]})
        rows += [
            {**said, "seed": seed, "spearman": value}
            for seed, value in zip(surface.seeds, one["of_seeds"], strict=True)
        ]
    return rows


def _drop(correlation: dict) -> str:
    return "after first drop" if correlation["after_drop"] else "before"


def _regret_table(rows: list[dict], repeats: int) -> Table:
    table = Table(title=f"Regret after so many trials, {repeats} studies each", title_justify="left")
    for name in ("objective", "sampler"):
        table.add_column(name)
    for name in ("workers", "trials", "mean ± its standard error", "median"):
        table.add_column(name, justify="right")
    for index, row in enumerate(rows):
        if index and any(row[name] != rows[index - 1][name] for name in ("objective", "workers", "trials")):
            table.add_section()
        cells = (row["objective"], row["sampler"], str(row["workers"]), str(row["trials"]))
        table.add_row(*cells, _with_error(row, ""), f"{row['median_regret']:.3g}")
    return table


def _pruning_table(rows: list[dict], milestone: int) -> Table:
    table = Table(
        *("workers", "trials", "trials pruned", "epochs saved", "regret ± its standard error", "without pruning"),
        title=f"Median pruner, from epoch {milestone + 1} on, of {PRUNED} with {DEFAULT_SAMPLER}",
        title_justify="left",
    )
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        shares = (f"{row['trials_pruned_percent']:.0f} %", f"{row['epochs_saved_percent']:.0f} %")
        regrets = (_with_error(row, ""), _with_error(row, "_unpruned"))
        table.add_row(str(row["workers"]), str(row["trials"]), *shares, *regrets)
    return table


def _correlation_table(correlations: list[dict], seeds: int) -> Table:
    table = Table(
        *("epochs", "learning rate", f"means of {seeds} seeds", "single seeds: mean", "lowest"),
        title="Spearman's rank correlation of the error after so many epochs with the last one",
        title_justify="left",
    )
    for one in correlations:
        single = one["of_seeds"]
        numbers = (f"{value:.3f}" for value in (one["of_means"], np.mean(single), min(single)))
        table.add_row(str(one["epochs"]), _drop(one), *numbers)
    return table


def _with_error(row: dict, ending: str) -> str:
    return f"{row[f'mean_regret{ending}']:.3f} ± {row[f'standard_error{ending}']:.3f}"


def _figure(results: Results, workers: list[int]) -> Figure:
    """Mean regret +- its standard error against the trials: a column an objective, a row a number of workers."""
    figure = Figure(figsize=(3.6 * len(OBJECTIVES), 2.9 * len(workers) + 0.4), layout="constrained")
    panels = figure.subplots(len(workers), len(OBJECTIVES), squeeze=False, sharex=True, sharey="col")
    for (objective, sampler, count, pruned), simulations in results.items():
        if pruned:
            continue
        axes = panels[workers.index(count)][list(OBJECTIVES).index(objective)]
        regrets = _regrets(simulations)
        steps, mean, error = np.arange(1, regrets.shape[1] + 1), regrets.mean(axis=0), _error_of_mean(regrets)
        axes.fill_between(steps, mean - error, mean + error, color=COLORS[sampler], alpha=0.25, linewidth=0)
        axes.plot(steps, mean, color=COLORS[sampler], linewidth=1.6, label=sampler)
    for row, count in zip(panels, workers, strict=True):
        row[0].set_ylabel(f"mean regret, {count} worker{'s' * (count > 1)}")
        for axes in row:
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_ylim(bottom=0)
            axes.margins(x=0)
    for column, objective in enumerate(OBJECTIVES):
        panels[0][column].set_title(TITLES[objective], fontsize=10)
        panels[-1][column].set_xlabel("trials")
    panels[0][-1].legend(frameon=False, fontsize=8)
    repeats = len(next(iter(results.values())))
    figure.suptitle(f"Regret of the samplers: mean of {repeats} studies ± its standard error", fontsize=10)
    return figure


def _save(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{cell:.8g}" if isinstance(cell, float) else cell for name, cell in row.items()})
    with written_aside(path) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    cli.run(main)
