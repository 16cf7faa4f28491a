"""The heat map: its numbers, its marks, and points without a result."""

import numpy as np
import pytest
from studies import metrics_of

from cskd.utils.numbers import TWO_LINES, mean_std_text
from experiments.runs.folder import RunFolder
from experiments.tuning.figures import NOT_RUN, grid_rows, heat_map
from experiments.tuning.space import load_space
from experiments.tuning.trial import COMPLETE, FAILED, RUNNING, Trial

SPACE = load_space("cs-kd", "paper")
RECIPE = {"temperature": 4.0, "lambda_cls": 1.0}


def test_every_grid_point_has_mean_and_std_or_a_state(tmp_path):
    def trial(number: int, temperature: float, weight: float, state: str, errors=()) -> Trial:
        """Return a trial with an error a seed, and write its run folders."""
        runs = {1000 + seed: f"run{number}-{seed}" for seed in range(len(errors))}
        for key, error in zip(runs.values(), errors, strict=True):
            (tmp_path / key).mkdir()
            metrics = {f"validation/{name}": value for name, value in metrics_of(error).items()}
            RunFolder(tmp_path / key).write_epochs([{"epoch": 0, "timestamp": 0.0, "metrics": metrics}])
        metrics = metrics_of(float(np.mean(errors))) if errors else {}
        return Trial(number, state, {"temperature": temperature, "lambda_cls": weight}, metrics=metrics, runs=runs)

    trials = [
        trial(0, 1.0, 2.0, COMPLETE, [9.0, 13.0]), trial(1, 4.0, 3.0, FAILED), trial(2, 4.0, 4.0, FAILED),
        trial(3, 4.0, 3.0, COMPLETE, [30.0, 31.0]), trial(4, 1.0, 4.0, RUNNING), trial(5, 4.0, 1.0, COMPLETE, [50.0]),
    ]  # fmt: skip
    rows = {(row["temperature"], row["lambda_cls"]): row for row in grid_rows(SPACE, trials, tmp_path, RECIPE)}
    assert {point: row["state"] for point, row in rows.items()} == {
        (1, 1): NOT_RUN, (1, 2): COMPLETE, (1, 3): NOT_RUN, (1, 4): RUNNING,
        (4, 1): COMPLETE, (4, 2): NOT_RUN, (4, 3): COMPLETE, (4, 4): FAILED,
    }  # fmt: skip
    results = {point: (row["error_mean"], row["error_std"]) for point, row in rows.items() if row["error_mean"]}
    assert results == {(1, 2): (11, pytest.approx(8**0.5)), (4, 3): (30.5, pytest.approx(0.5**0.5)), (4, 1): (50, None)}
    assert [point for point, row in rows.items() if row["recipe"]] == [(4, 1)]
    elsewhere = grid_rows(SPACE, trials, tmp_path / "elsewhere", RECIPE)
    assert [row["error_std"] for row in elsewhere] == [None] * 8


def test_heat_map_shows_numbers_states_and_marks():
    def row(point: dict, mean: float | None = None, nll: float = 1.0, std: float | None = 2.0, state=COMPLETE) -> dict:
        values = {"error_mean": mean, "ece_mean": mean and mean / 10, "nll_mean": nll, "error_std": std, "ece_std": std}
        return {**point, "state": state, "recipe": point == RECIPE, **values}

    points = SPACE.grid()  # T 1 with lambda 1 to 4, then T 4
    results = [{"mean": 11.0, "nll": 1.2}, {"mean": 11.0, "nll": 1.1}, {"state": NOT_RUN}, {"state": RUNNING}]
    results += [{"mean": 21.5, "std": None}, {"state": FAILED}, {"mean": 30.5}, {"mean": 25.0}]
    rows = [row(point, **result) for point, result in zip(points, results, strict=True)]
    error, ece, *_ = heat_map("title", SPACE, rows).axes

    def numbers(mean: float) -> str:
        return mean_std_text(mean, 2.0, 2, separator=TWO_LINES)

    texts = [numbers(11), numbers(11) + "\nlowest", "not run", "running"]
    texts += ["21.50\nrecipe", "failed", numbers(30.5), numbers(25)]
    cells = {text.get_position(): text.get_text() for text in error.texts}
    assert [cells[column, row] for row in (0, 1) for column in (0, 1, 2, 3)] == texts
    assert numbers(3.05) in {text.get_text() for text in ece.texts}
    assert (error.get_ylabel(), error.get_xlabel()) == ("temperature", "lambda_cls")
    assert [label.get_text() for label in error.get_xticklabels()] == ["1", "2", "3", "4"]
    assert error.images[0].get_array().mask.tolist() == [[False, False, True, True], [False, True, False, False]]
