"""The samplers and their benchmark, on surfaces whose optimum is known."""

import csv
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pytest

from cskd.errors import UserError
from experiments.compare_samplers import main
from experiments.tuning.benchmark import AFTER, START, load_surface, rank_correlations, simulate
from experiments.tuning.samplers import DEFAULT_SAMPLER, SAMPLERS
from experiments.tuning.study import PRUNER_STARTUP

TEMPERATURES, LAMBDAS = (1, 2, 4, 8, 16), (0.1, 0.3, 1, 3, 10)
EPOCHS, MILESTONE = (1, 20, 21, 30, 40), 20
AT_START = START[0]


def bowl(temperature, lambda_cls, best):
    """30 at the best point, quadratic in the logarithms, 60 above it at the distance of a whole axis."""
    across = np.log([TEMPERATURES[-1] / TEMPERATURES[0], LAMBDAS[-1] / LAMBDAS[0]])
    away = np.log([temperature / best["temperature"], lambda_cls / best["lambda_cls"]]) / across
    return 30 + 60 * (away**2).sum()


def rows_of(best=AT_START, seeds=1, noise=0.0, temperatures=TEMPERATURES, lambdas=LAMBDAS):
    random = np.random.default_rng(0)
    rows = []
    for temperature, lambda_cls, seed in product(temperatures, lambdas, range(1000, 1000 + seeds)):
        error = bowl(temperature, lambda_cls, best) + noise * random.normal()
        row = {"temperature": temperature, "lambda_cls": lambda_cls, "seed": seed}
        row |= {"error": error, "nll": error / 10, "ece": error / 3, "milestone": MILESTONE}
        rows.append(row | {f"{AFTER}{k}": error if k > MILESTONE else 100 - error for k in EPOCHS})
    return rows


@pytest.fixture
def write(tmp_path):
    """Writes rows as a surface's file and returns its path."""

    def write(rows):
        path = tmp_path / "surface.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def test_interpolation_is_exact_at_the_grids_points_and_linear_in_the_logarithms(write):
    surface = load_surface(write(rows_of(seeds=3, noise=1)))
    for (i, temperature), (j, lambda_cls) in product(enumerate(TEMPERATURES), enumerate(LAMBDAS)):
        true = surface.true_values({"temperature": temperature, "lambda_cls": lambda_cls})
        assert list(true.values()) == list(surface.means[i, j])
    between = surface.true_values({"temperature": np.sqrt(8), "lambda_cls": np.sqrt(0.3)})
    assert between["error"] == pytest.approx(surface.means[1:3, 1:3, 0].mean())


def test_observations_scatter_around_the_true_value_as_the_seeds_do(write):
    surface = load_surface(write(rows_of(seeds=3, noise=1)))
    point = {"temperature": 4.4, "lambda_cls": 0.9}  # near the middle of the grid
    observed = [surface.observe(point, seed)["error"] for seed in range(3)]
    assert np.mean(observed) == pytest.approx(surface.true_values(point)["error"])
    assert np.std(observed) == pytest.approx(surface.values[2, 2, 0].std(ddof=1))


def test_one_seed_is_no_noise(write):
    surface = load_surface(write(rows_of()))
    point = {"temperature": 4.4, "lambda_cls": 0.9}
    assert surface.observe(point, 0) == surface.true_values(point)


def test_the_starting_points_come_first_and_regret_is_zero_at_the_optimum(write):
    for first, second in (START, reversed(START)):
        surface = load_surface(write(rows_of(best=second)))
        regrets = simulate(surface, "error", "random", trials=4).regrets
        assert regrets[START.index(second) :] == pytest.approx(0)
        if second == START[1]:
            assert regrets[0] == pytest.approx(bowl(**first, best=second) - 30)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_regret_of_more_trials_begins_with_that_of_fewer(write, workers):
    surface = load_surface(write(rows_of({"temperature": 8, "lambda_cls": 0.3}, seeds=2, noise=1)))
    few, many = (simulate(surface, "nll", "tpe", trials=trials, workers=workers) for trials in (12, 15))
    assert np.array_equal(many.regrets[:12], few.regrets)


def test_the_default_sampler_beats_random_on_a_smooth_surface(write):
    surface = load_surface(write(rows_of({"temperature": 8, "lambda_cls": 0.3})))
    mean = {
        sampler: np.mean(
            [simulate(surface, "error", sampler, trials=20, repeat=repeat).regrets[-1] for repeat in range(4)]
        )
        for sampler in (DEFAULT_SAMPLER, "random")
    }
    assert mean[DEFAULT_SAMPLER] < 0.5 * mean["random"]


@pytest.mark.parametrize("noise", [0, 0.5])
def test_20_trials_of_the_default_sampler_come_within_10_percent_of_a_grid_of_100(write, noise):
    grid = {"temperatures": np.geomspace(1, 20, 10), "lambdas": np.geomspace(0.1, 10, 10)}
    surface = load_surface(write(rows_of({"temperature": 10, "lambda_cls": 0.2}, seeds=3, noise=noise, **grid)))
    at_start = surface.true_values(START[0])["error"]
    assert at_start > 1.2 * surface.best("error")
    for repeat in range(2):
        regret = simulate(surface, "error", DEFAULT_SAMPLER, trials=20, repeat=repeat).regrets[-1]
        assert regret <= 0.1 * surface.best("error")


def test_new_samplers_with_the_same_seeds_suggest_the_same_in_another_process(write):
    surface = load_surface(write(rows_of({"temperature": 8, "lambda_cls": 0.3}, seeds=2, noise=1)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for sampler in SAMPLERS:
            theirs = pool.submit(simulate, surface, "error", sampler, trials=14, workers=2)
            ours = simulate(surface, "error", sampler, trials=14, workers=2)
            assert ours.regrets == pytest.approx(theirs.result().regrets, rel=1e-9)
            assert not np.array_equal(ours.regrets, simulate(surface, "error", "random", trials=14, repeat=1).regrets)


def test_the_pruner_looks_only_after_the_drop(write):
    surface = load_surface(write(rows_of()))  # before the drop, what is best looks worst
    simulation = simulate(surface, "error", "random", trials=20, pruned=True)
    assert set(simulation.epochs) == {21, 40}
    assert (simulation.epochs[:PRUNER_STARTUP] == 40).all()
    assert simulation.regrets == pytest.approx(0)
    assert (simulate(surface, "error", "random", trials=20).epochs == 40).all()


def test_rank_correlations(write):
    surface = load_surface(write(rows_of(seeds=2, noise=1)))
    rows = rank_correlations(surface)
    assert [row["epochs"] for row in rows] == [1, 20, 21, 30]
    assert [row["after_drop"] for row in rows] == [False, False, True, True]
    assert [row["of_means"] for row in rows] == pytest.approx([-1, -1, 1, 1])
    assert all(row["of_seeds"] == pytest.approx([row["of_means"]] * 2) for row in rows)
    rows = [row | {f"{AFTER}1": 90} for row in rows_of()]
    assert np.isnan(rank_correlations(load_surface(write(rows)))[0]["of_means"])


def test_other_parameters_are_what_stands_before_seed(write):
    rows = [row for row in rows_of() if row.pop("lambda_cls") == 1]
    surface = load_surface(write([{"beta": row.pop("temperature"), **row} for row in rows]))
    assert surface.nodes == {"beta": TEMPERATURES}
    assert simulate(surface, "ece", "random", trials=5).regrets.min() >= 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-1], "is not a full grid: 5 x 5 points of 2 seeds in 49 rows"),
        (lambda rows: [*rows, rows[0]], "is not a full grid: 5 x 5 points of 2 seeds in 51 rows"),
        (lambda rows: [*rows[:-1], rows[0]], "is not a full grid"),
        (lambda rows: [row for row in rows if row["lambda_cls"] == 1], "lambda_cls needs two values or more"),
        (lambda rows: [row | {"temperature": row["temperature"] - 1} for row in rows], "temperature needs .* above 0"),
        (lambda rows: [row | {"nll": "good"} for row in rows], r"line 2: could not convert string to float: 'good'"),
        (lambda rows: [row | {"nll": "inf"} for row in rows], "line 2: every value must be a finite number"),
        (lambda rows: [row | {"milestone": 40} for row in rows], "milestone must be the same epoch in all rows"),
        (lambda rows: [{k: v for k, v in row.items() if k not in ("ece", "milestone")} for row in rows],
         r"needs the columns <parameters>, seed, error, nll, ece, .*; missing: ece, milestone"),
        (lambda rows: [{k: v for k, v in row.items() if not k.startswith(AFTER)} for row in rows],
         r"error_e<k> of two k or more; missing: parameters or k"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_surface_is_refused_in_one_line(write, change, told):
    with pytest.raises(UserError, match=told) as refused:
        load_surface(write(change(rows_of(seeds=2))))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.csv"], "nowhere.csv cannot be read .*No such file"),
        (["README.md", "--trials", "0"], "argument --trials: 0 is not a number from 1 to 1,000,000"),
        (["tests"], "tests cannot be read"),
    ],
)
def test_mistakes_on_the_command_line(arguments, told):
    with pytest.raises(UserError, match=told):
        main(arguments)


def test_the_command_writes_tables_and_a_figure(write, tmp_path, capsys):
    path = write(rows_of(seeds=2, noise=1))
    size = ["--trials", "3", "4", "--repeats", "2", "--workers", "1", "2", "--processes", "1"]
    assert main([str(path), *size, "--results-dir", str(tmp_path)]) == 0
    output, errors = capsys.readouterr()
    assert "5 temperature x 5 lambda_cls, 2 seeds, 40 epochs; 2 starting points" in output
    assert "ece, random, 2 workers: 2 studies done" in output
    assert errors == ""
    folder = tmp_path / "samplers"
    assert (folder / "regret.png").stat().st_size > 10_000
    rows = {
        name: list(csv.DictReader((folder / f"{name}.csv").open())) for name in ("regret", "correlation", "pruning")
    }
    assert len(rows["regret"]) == 3 * len(SAMPLERS) * 2 * 2
    assert [row["seed"] for row in rows["correlation"]] == ["mean", "1000", "1001"] * 4
    assert [(row["workers"], row["trials"]) for row in rows["pruning"]] == [*product("12", "34")]
