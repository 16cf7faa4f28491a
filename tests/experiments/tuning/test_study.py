"""Studies: no trial is lost or run twice, whichever process dies; the best trial and the Pareto front."""

import itertools
import json
import multiprocessing
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from studies import IDENTITY, complete, hold_trial, open_study, work

from cskd.utils.errors import UserError
from experiments.tuning.storage import load_study, open_journal, study_names
from experiments.tuning.trial import COMPLETE, FAILED, PRUNED, RUNNING, Trial, best_of, pareto_front

POINT = {"temperature": 4.0, "lambda_cls": 3.0}
fork = multiprocessing.get_context("fork")  # a new interpreter would import torch for seconds


def test_storage_keeps_parameters_runs_and_results_of_trials(tmp_path):
    with open_study(tmp_path) as study:
        study.enqueue([POINT])
        first, second, third = (study.ask(3) for _ in range(3))
        assert study.ask(3) is None
        study.record_runs(first.number, {1000: "abc"})
        complete(study, first, 30.0)
        study.fail(second.number, "it diverged")
        study.prune(third.number)
    address = str(tmp_path / "journal.log")
    objectives, trials, best = load_study(address, "s")
    assert (study_names(address), objectives, best) == (["s"], ("error",), trials[0])
    assert [trial.state for trial in trials] == [COMPLETE, FAILED, PRUNED]
    assert (trials[0].parameters, trials[0].runs, trials[0].values) == (POINT, {1000: "abc"}, (30.0,))
    assert trials[1].reason == "it diverged"


def test_retried_trial_replaces_the_failed_one_in_the_count(tmp_path):
    with open_study(tmp_path) as study:
        trial = study.ask(1)
        study.fail(trial.number, "out of memory")
        assert study.ask(1) is None
        assert study.remaining(1, retry=True) == 1
        assert [study.retry_failed(), study.retry_failed()] == [1, 0]
        assert study.ask(1).parameters == trial.parameters
        assert study.ask(1) is None
        assert [trial.state for trial in study.trials()] == [FAILED, RUNNING]


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


def test_study_with_another_identity_is_refused_and_unchanged(tmp_path):
    with open_study(tmp_path) as study:
        complete(study, study.ask(1), 30.0)
    other = IDENTITY | {"space": {"temperature": [1, 5]}}
    for open_again in (lambda: open_study(tmp_path, identity=other), lambda: study.open_read_only(other)):
        with pytest.raises(UserError, match="study s has another space: give STUDY=<a new name> for a new study"):
            open_again()
    assert len(load_study(str(tmp_path / "journal.log"), "s")[1]) == 1


def test_bad_storage_or_sampler_is_an_error_in_one_line(tmp_path):
    (tmp_path / "bad.log").write_text("not json\nnot json\n")
    bad = ("nosuch://place/db", f"sqlite:///{tmp_path}/missing/folder/s.db", str(tmp_path / "bad.log"))
    for address in bad:
        with pytest.raises(UserError, match=r"OPTUNA_STORAGE=.* cannot be used") as caught:
            open_study(tmp_path, address=address)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="unknown sampler 'best': choose from gp, grid, random, tpe"):
        open_study(tmp_path, sampler="best")


def test_database_of_a_newer_version_is_named(call, tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path}/studies.db"
    open_study(tmp_path, address=address)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    status, _, errors = call("experiments dashboard")
    assert (status, errors.count("\n")) == (2, 1)
    assert f"OPTUNA_STORAGE={address} was made by a newer optuna or another program (schema v9.0.0.a)" in errors


@pytest.mark.parametrize("statements", [12, 45])
def test_interrupted_creation_of_a_database_is_repeated(tmp_path, statements):
    address, count = f"sqlite:///{tmp_path}/studies.db", itertools.count(1)

    def die(*arguments):
        if next(count) == statements:
            raise KeyboardInterrupt  # leaves the file as SIGKILL does

    event.listen(Engine, "after_cursor_execute", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            open_study(tmp_path, address=address)
    finally:
        event.remove(Engine, "after_cursor_execute", die)
    with open_study(tmp_path, address=address) as study:
        complete(study, study.ask(1), 30.0)


@pytest.mark.parametrize("address", ["", "sqlite:///{}/studies.db"])
def test_trial_of_an_ended_process_is_taken_over(tmp_path, address):
    address = address.format(tmp_path)
    with open_study(tmp_path, address=address) as study:
        complete(study, study.ask(2), 30.0)
        abandoned = study.ask(2)
    with open_study(tmp_path, address=address) as study:
        assert (study.remaining(2), study.abandoned()) == (1, [1])
        assert study.ask(2) == abandoned
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


def test_trial_killed_before_it_had_parameters_gets_the_enqueued_point(tmp_path):
    with open_study(tmp_path) as study:
        study.enqueue([POINT])
        study.study.ask()  # the first step of ask
    with open_study(tmp_path) as study:
        taken = study.ask(1)
        assert (taken.number, taken.parameters) == (0, POINT)


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


def test_pruning_waits_for_its_epoch_and_for_four_complete_trials(tmp_path):
    with open_study(tmp_path) as study:
        for value in (10.0, 11.0, 12.0, 13.0):
            trial = study.ask(9)
            assert not study.should_prune(trial.number, 5, value, warmup=4)
            complete(study, trial, value)
        poor, good = study.ask(9).number, study.ask(9).number
        assert not study.should_prune(poor, 4, 50.0, warmup=4)
        assert study.should_prune(poor, 5, 50.0, warmup=4)
        assert study.should_prune(poor, 5, 50.0, warmup=4)  # the same report after a restart
        assert not study.should_prune(good, 5, 9.0, warmup=4)


@pytest.mark.parametrize("intact", [0, 3])
@pytest.mark.parametrize("incomplete", ["", '{"half', '{"half":"' + 200_000 * "x"])
def test_journal_drops_the_incomplete_line_of_a_killed_process(tmp_path, intact, incomplete):
    path = tmp_path / "journal.log"
    lines = [json.dumps({"number": number}) + "\n" for number in range(intact)]
    path.write_text("".join(lines) + incomplete)
    open_journal(path).append_logs([{"number": "next"}])
    assert [log["number"] for log in open_journal(path).read_logs(0)] == [*range(intact), "next"]
