"""Studies: nothing lost, nothing twice, whoever dies; and what is best in them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest

from cskd.utils.errors import UserError
from experiments.tuning import study as module
from experiments.tuning.space import load_space
from experiments.tuning.storage import load_trials, study_names
from experiments.tuning.study import GRID, Study
from experiments.tuning.trial import COMPLETE, FAILED, PRUNED, RUNNING, best_of, pareto_front

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = {"space": {"temperature": [1, 20]}, "objective": ["error"]}


def open_study(folder: Path, *, name="s", identity=IDENTITY, objectives=("error",), sampler="random", address=None):
    study = Study(address or str(folder / "journal.log"), name, folder / name)
    study.open(identity, load_space("cs-kd"), objectives, sampler)
    return study


def finish(study: Study, trial, error: float, **more) -> None:
    metrics = {"top1_error": error, "nll": 1.0, "ece": 5.0} | more
    study.complete(trial.number, metrics, [metrics[{"error": "top1_error"}.get(n, n)] for n in study.objectives])


def test_a_trial_has_all_its_parameters_and_keeps_what_is_told(tmp_path):
    with open_study(tmp_path) as study:
        study.enqueue([{"temperature": 4.0, "lambda_cls": 1.0}])
        first = study.take(3)
        assert first.parameters == {"temperature": 4.0, "lambda_cls": 1.0}
        study.record_runs(first.number, {1000: "abc"})
        finish(study, first, 30.0)
        second, third = study.take(3), study.take(3)
        assert study.take(3) is None
        study.fail(second.number, "it diverged")
        assert study.report(third.number, 5, 40.0, after=4) is False
        study.prune(third.number)
    objectives, trials = load_trials(str(tmp_path / "journal.log"), "s")
    assert objectives == ("error",)
    assert [trial.state for trial in trials] == [COMPLETE, FAILED, PRUNED]
    assert trials[0].runs == {1000: "abc"}
    assert trials[0].values == (30.0,)
    assert trials[1].reason == "it diverged"
    assert trials[2].steps == {5: 40.0}
    assert best_of(trials).number == 0
    assert study_names(str(tmp_path / "journal.log")) == ["s"]


def test_points_are_enqueued_once(tmp_path):
    point = {"temperature": 4.0, "lambda_cls": 1.0}
    with open_study(tmp_path) as study:
        study.enqueue([point, dict(point)])
        study.enqueue([point])
        finish(study, study.take(1), 30.0)
        study.enqueue([point])
        assert study.take(9).parameters != point


def test_failed_points_are_tried_again_only_when_asked_and_then_do_not_count_twice(tmp_path):
    with open_study(tmp_path) as study:
        trial = study.take(1)
        study.fail(trial.number, "out of memory")
        assert study.take(1) is None
        assert study.retry_failed() == 1
        assert study.retry_failed() == 0
        again = study.take(1)
        assert again.parameters == trial.parameters
        assert study.take(1) is None
        assert [one.state for one in study.trials()] == [FAILED, RUNNING]


def test_what_is_suggested_depends_on_the_trials_alone_not_on_restarts(tmp_path):
    def suggested(folder: Path, restarts: int) -> list:
        folder.mkdir()
        points = []
        for _ in range(restarts + 1):
            with open_study(folder, sampler="gp") as study:
                for _ in range(12 // (restarts + 1)):
                    trial = study.take(99)
                    points.append(trial.parameters)
                    finish(study, trial, trial.parameters["temperature"])
        return points

    once, thrice = suggested(tmp_path / "a", 0), suggested(tmp_path / "b", 2)
    assert once == thrice
    assert len({tuple(point.values()) for point in once}) == 12


def test_a_study_of_the_same_name_with_another_space_is_refused_and_left_alone(tmp_path):
    with open_study(tmp_path) as study:
        finish(study, study.take(1), 30.0)
    with pytest.raises(UserError, match="study s was begun with another space: give STUDY=<a new name> to start anew"):
        open_study(tmp_path, identity=IDENTITY | {"space": {"temperature": [1, 5]}})
    assert len(load_trials(str(tmp_path / "journal.log"), "s")[1]) == 1


def test_unusable_storages_are_said_in_one_line(tmp_path):
    for address in ("nosuch://place/db", f"sqlite:///{tmp_path}/missing/folder/s.db"):
        with pytest.raises(UserError, match=r"OPTUNA_STORAGE=.* cannot be used") as caught:
            open_study(tmp_path, address=address)
        assert "\n" not in str(caught.value)
    journal = tmp_path / "journal.log"
    journal.write_text("not json\nnot json\n")
    with pytest.raises(UserError, match="cannot be used"):
        open_study(tmp_path)


def test_a_database_works_as_well_as_a_journal(tmp_path):
    address = f"sqlite:///{tmp_path}/studies.db"
    with open_study(tmp_path, address=address) as study:
        finish(study, study.take(2), 30.0)
        abandoned = study.take(2)
    with open_study(tmp_path, address=address) as study:
        assert study.orphans() == 1
        taken = study.take(2)
        assert (taken.number, taken.parameters) == (abandoned.number, abandoned.parameters)
        finish(study, taken, 31.0)
    assert [trial.state for trial in load_trials(address, "s")[1]] == [COMPLETE, COMPLETE]


KILLED = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, "tests/experiments")
    from test_study import open_study
    with open_study(Path(sys.argv[1])) as study:
        trial = study.take(9)
        study.record_runs(trial.number, {1000: f"run{trial.number}"})
        print(trial.number, flush=True)
        time.sleep(600)
""")


def test_the_trial_of_a_process_that_is_killed_is_taken_over_as_it_was_and_a_living_ones_is_not(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        number = int(process.stdout.readline())
        with open_study(tmp_path) as study:
            before = study.trials()[number]
            other = study.take(9)
            assert other.number != number
            assert study.orphans() == 0
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert study.orphans() == 1
            taken = study.take(9)
            assert (taken.number, taken.parameters, taken.runs) == (number, before.parameters, {1000: f"run{number}"})
            assert study.orphans() == 0
    finally:
        process.kill()


def test_a_trial_killed_before_it_had_parameters_gets_those_that_were_enqueued(tmp_path):
    point = {"temperature": 4.0, "lambda_cls": 3.0}
    with open_study(tmp_path) as study:
        study.enqueue([point])
        study.study.ask()  # what take() does first, and then the process is gone
    with open_study(tmp_path) as study:
        taken = study.take(1)
        assert (taken.number, taken.parameters) == (0, point)


def test_a_trial_of_a_machine_whose_lock_cannot_be_seen_is_left_alone_until_it_has_long_been_silent(
    tmp_path, monkeypatch
):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    address = str(tmp_path / "journal.log")
    with open_study(elsewhere, address=address) as study:
        study.take(5)
        with open_study(here, address=address) as other:
            assert other.orphans() == 0
            monkeypatch.setattr(module, "SILENCE_LIMIT", 0.0)
            time.sleep(0.01)
            assert other.orphans() == 1
            study.beat()
            monkeypatch.setattr(module, "SILENCE_LIMIT", 60.0)
            assert other.orphans() == 0


def work(folder: str, count: int) -> None:
    with open_study(Path(folder)) as study:
        while (trial := study.take(count)) is not None:
            time.sleep(0.01)
            finish(study, trial, 30.0, worker=os.getpid())


def test_processes_at_one_study_share_its_trials_exactly(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(str(tmp_path), 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    trials = load_trials(str(tmp_path / "journal.log"), "s")[1]
    assert [trial.state for trial in trials] == [COMPLETE] * 20
    assert len({tuple(trial.parameters.values()) for trial in trials}) == 20


def test_of_equal_values_the_lower_nll_is_best_and_pruned_trials_never_are(tmp_path):
    with open_study(tmp_path) as study:
        for nll in (1.2, 1.1, 1.3):
            finish(study, study.take(9), 30.0, nll=nll)
        study.prune(study.take(9).number)
        assert best_of(study.trials()).number == 1


def test_the_pareto_front_is_what_nothing_beats_in_both(tmp_path):
    identity = IDENTITY | {"objective": ["error", "ece"]}
    with open_study(tmp_path, objectives=("error", "ece"), identity=identity) as study:
        for error, ece in ((30, 5), (20, 9), (25, 6), (26, 7), (30, 5), (31, 4)):
            finish(study, study.take(9), float(error), ece=float(ece))
        trials = study.trials()
        assert [trial.number for trial in pareto_front(trials)] == [1, 2, 0, 4, 5]
        assert [trial.number for trial in pareto_front(trials)] == [
            trial.number for trial in sorted(study.study.best_trials, key=lambda trial: (trial.values, trial.number))
        ]
        assert best_of(trials) is None


def test_pruning_waits_for_its_epoch_and_for_enough_complete_trials(tmp_path):
    with open_study(tmp_path) as study:
        for value in (10.0, 11.0, 12.0, 13.0):
            trial = study.take(9)
            assert not study.report(trial.number, 5, value, after=4)
            finish(study, trial, value)
        poor = study.take(9)
        assert not study.report(poor.number, 4, 50.0, after=4)
        assert study.report(poor.number, 5, 50.0, after=4)
        assert study.report(poor.number, 5, 50.0, after=4)  # told again after a restart
        good = study.take(9)
        assert not study.report(good.number, 5, 9.0, after=4)


def test_an_unknown_sampler_is_refused_and_a_grid_is_one(tmp_path):
    with pytest.raises(UserError, match="unknown sampler 'best': choose from gp, grid, random, tpe"):
        open_study(tmp_path, sampler="best")
    open_study(tmp_path, sampler=GRID)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
