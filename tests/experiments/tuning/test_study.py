"""Studies: no trial is lost or run twice, whichever process dies; the best trial and the Pareto front."""

import json
import multiprocessing
import sqlite3
from contextlib import closing

import pytest
from studies import complete, hold_trial, open_study, work

from cskd.utils.errors import UserError
from experiments.tuning.storage import load_study, open_journal
from experiments.tuning.trial import COMPLETE, PRUNED, Trial, best_of, pareto_front

POINT = {"temperature": 4.0, "lambda_cls": 3.0}
fork = multiprocessing.get_context("fork")  # a new interpreter would import torch for seconds


def test_suggestions_do_not_depend_on_restarts(tmp_path):
    def suggestions(folder, restarts: int) -> list:
        folder.mkdir()
        points = []
        for _ in range(restarts + 1):
            with open_study(folder, sampler="gp") as study:
                for _ in range(12 // (restarts + 1)):
                    trial = study.ask(99)
                    points.append(trial.parameters)
                    complete(study, trial, trial.parameters["temperature"])
        return points

    points = suggestions(tmp_path / "a", 0)
    assert points == suggestions(tmp_path / "b", 2)
    assert len({tuple(point.values()) for point in points}) == 12


def test_bad_storage_is_an_error_in_one_line(tmp_path):
    (tmp_path / "bad.log").write_text("not json\nnot json\n")
    bad = ("nosuch://place/db", f"sqlite:///{tmp_path}/missing/folder/s.db", str(tmp_path / "bad.log"))
    for address in bad:
        with pytest.raises(UserError, match=r"OPTUNA_STORAGE=.* cannot be used") as caught:
            open_study(tmp_path, address=address)
        assert "\n" not in str(caught.value)


def test_database_of_a_newer_version_is_named(call, tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path}/studies.db"
    open_study(tmp_path, address=address)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    status, _, errors = call("experiments dashboard")
    assert (status, errors.count("\n")) == (2, 1)
    assert f"OPTUNA_STORAGE={address} was made by a newer optuna or another program (schema v9.0.0.a)" in errors


def test_study_of_another_runs_dir_is_refused_and_left_out_of_sync(call, tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path}/studies.db"
    for _ in range(2):
        open_study(tmp_path / "one", address=address)
    with pytest.raises(UserError, match=r"^study s has another RUNS_DIR: give STUDY=<a new name>"):
        open_study(tmp_path / "other", address=address)
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    assert call("experiments sync") == (0, "study s is left out: its runs are in another RUNS_DIR\n", "")


@pytest.mark.parametrize("address", ["", "sqlite:///{}/studies.db"])
def test_trial_of_an_ended_process_is_taken_over(tmp_path, address):
    address = address.format(tmp_path)
    with open_study(tmp_path, address=address) as study:
        study.enqueue([POINT])
        abandoned = study.ask(2)
        study.enqueue([POINT | {"temperature": 5.0}])
        study.study.ask()  # the first step of ask: the trial has no parameters yet
    with open_study(tmp_path, address=address) as study:
        assert (study.remaining(2), study.abandoned()) == (2, [0, 1])
        assert [study.ask(2), study.ask(2).parameters] == [abandoned, POINT | {"temperature": 5.0}]
        assert study.abandoned() == []


def test_trial_of_a_killed_process_is_taken_over_and_that_of_a_live_one_is_not(tmp_path):
    ours, theirs = fork.Pipe()
    process = fork.Process(target=hold_trial, args=(tmp_path, theirs))
    process.start()
    number = ours.recv()
    with open_study(tmp_path) as study:
        held = study.trials()[number]
        assert study.ask(9).number != number
        process.kill()
        process.join()
        taken = study.ask(9)
        assert (taken.number, taken.parameters, taken.runs) == (number, held.parameters, {1000: f"run{number}"})


def test_result_of_a_lost_trial_is_ignored(tmp_path):
    with open_study(tmp_path) as first, open_study(tmp_path) as second:
        trial = first.ask(9)
        first._lease.close()  # as after a suspension
        assert second.ask(9).number == trial.number
        complete(first, trial, 20.0)
        complete(second, trial, 30.0)
        assert second.trials()[trial.number].values == (30.0,)


def test_parallel_processes_share_the_trials(tmp_path):
    processes = [fork.Process(target=work, args=(tmp_path, 12)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    trials = load_study(str(tmp_path / "journal.log"), "s")[1]
    assert [trial.state for trial in trials] == [COMPLETE] * 12
    assert len({tuple(trial.parameters.values()) for trial in trials}) == 12


def test_equal_values_are_decided_by_the_nll():
    trials = [Trial(number, COMPLETE, {}, (30.0,), {"nll": nll}) for number, nll in enumerate((1.2, 1.1, 1.3))]
    assert best_of([*trials, Trial(3, PRUNED, {})]).number == 1
    assert best_of([]) is None


def test_pareto_front_is_optunas(tmp_path):
    with open_study(tmp_path, objectives=("error", "ece")) as study:
        for error, ece in ((30, 5), (20, 9), (25, 6), (26, 7), (30, 5), (31, 4)):
            complete(study, study.ask(9), float(error), ece=float(ece))
        front = [trial.number for trial in pareto_front(study.trials())]
        assert front == [1, 2, 0, 4, 5]
        assert sorted(front) == sorted(trial.number for trial in study.study.best_trials)
        assert best_of(study.trials()) is None


@pytest.mark.parametrize("intact", [0, 3])
@pytest.mark.parametrize("incomplete", ["", '{"half', '{"half":"' + 200_000 * "x"])
def test_journal_drops_the_incomplete_line_of_a_killed_process(tmp_path, intact, incomplete):
    path = tmp_path / "journal.log"
    lines = [json.dumps({"number": number}) + "\n" for number in range(intact)]
    path.write_text("".join(lines) + incomplete)
    open_journal(path).append_logs([{"number": "next"}])
    assert [log["number"] for log in open_journal(path).read_logs(0)] == [*range(intact), "next"]
