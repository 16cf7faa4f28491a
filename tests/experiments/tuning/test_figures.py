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


def make_trial(number: int, temperature: float, weight: float, state: str, **results) -> Trial:
    return Trial(number, state, {"temperature": temperature, "lambda_cls": weight}, **results)


def make_complete(number: int, temperature: float, weight: float, errors: list[float], folder, nll=1.0) -> Trial:
    """Return a complete trial with an error a seed, and write its run folders. The ECE is a tenth of the error."""
    runs, records = {}, [metrics_of(error, nll, error / 10) for error in errors]
    for seed, record in enumerate(records, start=1000):
        runs[seed] = f"run{number}-{seed}"
        (folder / runs[seed]).mkdir()
        metrics = {f"validation/{name}": value for name, value in record.items()}
        RunFolder(folder / runs[seed]).write_epochs([{"epoch": 0, "timestamp": 0.0, "metrics": metrics}])
    means = {name: float(np.mean([record[name] for record in records])) for name in records[0]}
    return make_trial(number, temperature, weight, COMPLETE, values=(means["top1_error"],), metrics=means, runs=runs)


@pytest.fixture
def trials(tmp_path) -> list[Trial]:
    """Return trials of two seeds. T 1, lambda 2 has the lowest error, by its NLL; two points have no trial."""
    return [
        make_complete(0, 4.0, 1.0, [20.0, 23.0], tmp_path),
        make_trial(1, 4.0, 3.0, FAILED),
        make_complete(2, 1.0, 3.0, [10.0, 12.0], tmp_path, nll=1.2),
        make_complete(3, 1.0, 2.0, [9.0, 13.0], tmp_path, nll=1.1),
        make_complete(4, 4.0, 3.0, [30.0, 31.0], tmp_path),
        make_trial(5, 4.0, 4.0, FAILED),
        make_trial(6, 1.0, 4.0, RUNNING),
    ]


def test_every_grid_point_has_mean_and_std_or_a_state(trials, tmp_path):
    rows = {(row["temperature"], row["lambda_cls"]): row for row in grid_rows(SPACE, trials, tmp_path, RECIPE)}
    assert set(rows) == {(t, w) for t in (1, 4) for w in (1, 2, 3, 4)}
    states = {point: row["state"] for point, row in rows.items() if row["error_mean"] is None}
    assert states == {(1, 1): NOT_RUN, (4, 2): NOT_RUN, (4, 4): FAILED, (1, 4): RUNNING}
    expected = {"error_mean": 11, "error_std": 8**0.5, "nll_mean": 1.1, "ece_mean": 1.1, "ece_std": 0.08**0.5}
    assert {name: rows[1, 2][name] for name in expected} == pytest.approx(expected)
    assert (rows[4, 3]["error_mean"], rows[4, 3]["state"]) == (30.5, COMPLETE)  # not of the failed trial
    assert [point for point, row in rows.items() if row["recipe"]] == [(4, 1)]


def test_heat_map_shows_numbers_states_and_marks(trials, tmp_path):
    def texts(axes) -> dict[tuple[float, float], str]:
        """Return the text of each cell by (temperature, lambda_cls)."""
        rows, columns = (
            [float(t.get_text()) for t in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())
        )
        return {(rows[t.get_position()[1]], columns[t.get_position()[0]]): t.get_text() for t in axes.texts}

    def two_lines(mean: float, std: float) -> str:
        return mean_std_text(mean, std, 2, separator=TWO_LINES)

    error, ece, *_ = heat_map("title", SPACE, grid_rows(SPACE, trials, tmp_path, RECIPE)).axes
    assert texts(error) == {
        (1, 1): "not run", (1, 2): two_lines(11, 2.83) + "\nlowest", (1, 3): two_lines(11, 1.41), (1, 4): "running",
        (4, 1): two_lines(21.5, 2.12) + "\nrecipe", (4, 2): "not run", (4, 3): two_lines(30.5, 0.71), (4, 4): "failed",
    }  # fmt: skip
    assert texts(ece)[4, 1] == two_lines(2.15, 0.21) + "\nrecipe"
    assert (error.get_ylabel(), error.get_xlabel()) == ("temperature", "lambda_cls")
    assert [label.get_text() for label in error.get_xticklabels()] == ["1", "2", "3", "4"]
    assert error.images[0].get_array().mask.tolist() == [[True, False, False, True], [False, True, False, True]]
    elsewhere = heat_map("title", SPACE, grid_rows(SPACE, trials, tmp_path / "elsewhere", RECIPE))
    assert texts(elsewhere.axes[0])[4, 1] == "21.50\nrecipe"
