"""The part ``waiting``: its rows, and the made-up runs that its commands read. No command trains here."""

import csv

import pytest

from cskd.evaluate.evaluation import load_evaluation
from cskd.utils.errors import UserError
from experiments.bench import made_up_runs, waiting
from experiments.bench.waiting import GOALS, Wait
from experiments.runs.folder import DONE, RunFolder

SIZES = (5, 10, 15)  # multiples of five: one method on five datasets


@pytest.fixture
def small(monkeypatch):
    """Make few runs, with few predictions."""
    monkeypatch.setattr(made_up_runs, "METHODS", ("cs-kd",))
    monkeypatch.setattr(made_up_runs, "CELLS", 5)
    for name, number in {"IMAGES": 60, "CLASSES": 3, "FEATURES": 4}.items():
        monkeypatch.setattr(made_up_runs, name, number)
    monkeypatch.setattr(waiting, "COMMANDS", dict(zip(SIZES, waiting.COMMANDS.values(), strict=True)))


def test_every_wait_is_measured_on_runs_of_its_kind(small, call, tmp_path, monkeypatch):
    commands = {}

    def wait(folder, *command):
        """Note the runs that a command finds; the demo makes up runs with the seconds of their start."""
        if "demo" in command and "--tables" in command:
            for number, run in enumerate(made_up_runs.make_runs(5, folder / "runs")):
                seconds = {"started": number, "set_up_seconds": number, "first_step_seconds": 0.5}
                run.folder.write_environment("a training", [made_up_runs.ENVIRONMENT | seconds])
        runs = [RunFolder(path.parent) for path in (folder / "runs").glob("*/spec.json")]
        assert {run.state()["state"] for run in runs} <= {DONE}
        evaluated = [run for run in runs if load_evaluation(run.evaluation, run.predictions)]
        commands.setdefault(command, []).append((len(runs), len(evaluated)))
        return Wait(len(commands), 0.25, 100)

    monkeypatch.setattr(waiting, "_wait", wait)
    status, output, errors = call("experiments bench", "--parts", "waiting")
    assert (status, errors) == (0, "")
    assert commands["experiments", "status"] == [(5, 0)]
    assert commands["experiments", "sync"] == [(10, 0), (15, 0)]
    assert commands["analysis", "tables"] == [(10, 10)]
    assert commands["analysis", "report"] == [(15, 15), (15, 15)]
    with (tmp_path / "results" / "bench" / "waiting.csv").open(newline="") as file:
        rows = {row["phase"]: row for row in csv.DictReader(file)}
    assert {name: float(row["goal_seconds"]) for name, row in rows.items()} == GOALS
    assert float(rows["start of a run"]["seconds"]) == 3  # the median of 1.5 to 4.5: without the first run
    assert float(rows["first line"]["seconds"]) == 0.25
    assert all(name in output for name in GOALS)


def test_wait_has_the_time_of_the_first_line_and_the_error_of_a_failed_command(tmp_path):
    wait = waiting._wait(tmp_path / "new", "experiments", "--help")
    assert 0 < wait.first <= wait.seconds and wait.peak_megabytes > 1
    with pytest.raises(UserError, match="experiments no-command failed: error: unknown command 'no-command'"):
        waiting._wait(tmp_path / "new", "experiments", "no-command")
