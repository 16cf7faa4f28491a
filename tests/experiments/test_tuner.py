"""The tuner between a launcher and a study, with run folders written by hand in the place of training."""

import time

import pytest

from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec, Validation
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun
from experiments.tuning import tuner as module
from experiments.tuning.space import load_space
from experiments.tuning.study import Study
from experiments.tuning.trial import COMPLETE, PRUNED
from experiments.tuning.trial import FAILED as FAILED_TRIAL
from experiments.tuning.tuner import Tuner


class Bench:
    """A study with a tuner whose runs take no time."""

    def __init__(self, folder, *, count=3, seeds=(1000,), objectives=("error",), **options):
        self.runs_dir = folder / "runs"
        self.profile, self.settings = load_settings("digits")
        self.seeds = seeds
        self.study = Study(str(folder / "journal.log"), "s", folder / "s")
        self.study.open({"objective": list(objectives)}, load_space("cs-kd"), objectives, "random")
        self.said = []
        self.tuner = Tuner(
            self.study, count, self.make_runs, ended=lambda trial, message: self.said.append(message), **options
        )
        self.drawn = self.tuner.runs()

    def make_runs(self, point):
        specs = [
            RunSpec(
                dataset="digits", profile=self.profile, architecture="resnet10", method="cs-kd", parameters=point,
                seed=seed, settings=self.settings, data_digest="d", data_complete=True, data_source="made up",
                numerics_version=1, comparable=False, comparable_reason="validation split", validation=Validation(fraction=0.5, indices_digest="i"),
            )
            for seed in self.seeds
        ]  # fmt: skip
        return [PlannedRun(spec, RunFolder.of(spec, self.runs_dir), 10, 100, 100) for spec in specs]

    def next(self) -> PlannedRun | None:
        return next(self.drawn, "end")

    @staticmethod
    def train(run: PlannedRun, error: float, epochs: int = 40, state: str = DONE, **details) -> None:
        records = run.folder.epochs()
        for epoch in range(len(records), epochs):
            metrics = {"validation/top1_error": error, "validation/nll": error / 10, "validation/ece": 3.0}
            records.append({"epoch": epoch, "timestamp": 1.7e9, "metrics": metrics})
        run.folder.write_epochs(records)
        run.folder.write_state(state, **details)

    def end(self, run: PlannedRun, error: float) -> None:
        self.train(run, error)
        self.tuner.ended(run, DONE)

    def states(self) -> list[str]:
        return [trial.state for trial in self.study.trials()]


def test_it_draws_as_many_trials_as_are_wanted_and_tells_their_values(tmp_path):
    bench = Bench(tmp_path, count=2)
    with bench.study:
        one, two = bench.next(), bench.next()
        assert bench.next() is None  # both are begun, neither has ended
        bench.end(two, 20.0)
        bench.end(one, 30.0)
        assert bench.next() == "end"
    assert [trial.values for trial in bench.study.trials()] == [(30.0,), (20.0,)]
    assert bench.study.trials()[0].metrics == {"top1_error": 30.0, "nll": 3.0, "ece": 3.0}
    assert bench.said == ["error 20", "error 30"]


def test_a_trial_of_several_seeds_is_their_mean_and_ends_with_the_last_of_them(tmp_path):
    bench = Bench(tmp_path, count=1, seeds=(1000, 1001), objectives=("error", "ece"))
    with bench.study:
        one, two = bench.next(), bench.next()
        assert (one.spec.seed, two.spec.seed) == (1000, 1001)
        bench.end(one, 20.0)
        assert bench.states() == ["running"]
        bench.end(two, 30.0)
    (trial,) = bench.study.trials()
    assert trial.values == (25.0, 3.0)
    assert trial.runs == {1000: one.spec.run_key, 1001: two.spec.run_key}


def test_when_one_seed_fails_the_others_are_stopped_and_the_trial_has_failed(tmp_path):
    bench = Bench(tmp_path, count=1, seeds=(1000, 1001, 1002))
    with bench.study:
        one, two = bench.next(), bench.next()  # the third is not started yet
        bench.train(one, 90.0, epochs=2, state=FAILED, reason="the loss is not finite")
        bench.tuner.ended(one, FAILED)
        assert bench.tuner.unwanted(two)
        assert bench.states() == ["running"]
        bench.tuner.ended(two, INTERRUPTED)
        assert bench.states() == [FAILED_TRIAL]
        assert bench.next() == "end"
    assert "seed1000: the loss is not finite" in bench.study.trials()[0].reason


def test_results_that_are_there_already_are_not_trained_again(tmp_path):
    first = Bench(tmp_path / "a", count=1)
    with first.study:
        run = first.next()
        first.end(run, 20.0)
    point = {name: run.spec.parameters[name] for name in ("temperature", "lambda_cls")}
    second = Bench(tmp_path / "b", count=1)
    second.runs_dir = first.runs_dir
    with second.study:
        second.study.enqueue([point])
        assert second.next() is None
        assert second.next() == "end"
    assert second.study.trials()[0].values == (20.0,)


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    bench = Bench(tmp_path, count=1)
    with bench.study:
        run = bench.next()
        bench.tuner.ended(run, RUNNING)
        assert bench.next() is None
        time.sleep(0.06)
        assert bench.next() == run
        bench.end(run, 20.0)
        assert bench.next() == "end"
    assert bench.states() == [COMPLETE]


def test_a_stop_leaves_the_trial_for_the_next_launch_with_its_epochs(tmp_path):
    bench = Bench(tmp_path, count=1)
    with bench.study:
        run = bench.next()
        bench.train(run, 50.0, epochs=7, state=INTERRUPTED, epoch=7, epochs_in_all=40)
        bench.tuner.ended(run, INTERRUPTED)
    again = Bench(tmp_path, count=1)
    with again.study:
        same = again.next()
        assert same.spec.run_key == run.spec.run_key
        assert len(same.folder.epochs()) == 7
        again.end(same, 20.0)
        assert again.next() == "end"
    assert again.states() == [COMPLETE]


def test_a_trial_whose_process_was_killed_stays_for_the_next_launch_and_the_others_go_on(tmp_path):
    bench = Bench(tmp_path, count=2, seeds=(1000, 1001))
    with bench.study:
        killed, other, *following = (bench.next() for _ in range(4))
        bench.train(killed, 50.0, epochs=7, state=INTERRUPTED, epoch=7, epochs_in_all=40)
        bench.tuner.ended(killed, INTERRUPTED)
        assert bench.next() is None  # its other seed is not to be lost
        bench.end(other, 20.0)
        for run in following:
            bench.end(run, 30.0)
        assert bench.next() == "end"
    assert bench.states() == ["running", COMPLETE]
    assert bench.tuner.interrupted == 1
    again = Bench(tmp_path, count=2, seeds=(1000, 1001))
    with again.study:
        again.end(again.next(), 20.0)
        assert again.next() == "end"
    assert again.states() == [COMPLETE, COMPLETE]


def test_no_trial_begins_after_the_deadline_and_those_begun_are_finished(tmp_path):
    bench = Bench(tmp_path, count=5, seeds=(1000, 1001), deadline=time.monotonic() + 0.3)
    with bench.study:
        one = bench.next()
        time.sleep(0.35)
        two = bench.next()
        assert (one.spec.seed, two.spec.seed) == (1000, 1001)
        assert bench.next() is None
        bench.end(one, 20.0)
        bench.end(two, 20.0)
        assert bench.next() == "end"
    assert bench.states() == [COMPLETE]


def test_a_poor_trial_is_pruned_but_not_before_the_learning_rate_has_dropped(tmp_path):
    bench = Bench(tmp_path, count=5, prune_after=20)
    with bench.study:
        for error in (10.0, 11.0, 12.0, 13.0):
            run = bench.next()
            for epochs in (21, 40):
                bench.train(run, error, epochs=epochs, state=RUNNING)
                bench.tuner.moved(run)
                assert not bench.tuner.unwanted(run)
            bench.end(run, error)
        poor = bench.next()
        bench.train(poor, 80.0, epochs=20, state=RUNNING)
        bench.tuner.moved(poor)
        assert not bench.tuner.unwanted(poor)
        bench.train(poor, 80.0, epochs=21, state=RUNNING)
        bench.tuner.moved(poor)
        assert bench.tuner.unwanted(poor)
        bench.tuner.ended(poor, INTERRUPTED)
        assert bench.next() == "end"
    assert bench.states() == [COMPLETE] * 4 + [PRUNED]
    assert bench.said[-1] == "pruned after 21 epochs"


def test_three_failures_before_any_success_end_it_and_one_success_lets_it_go_on(tmp_path):
    bench = Bench(tmp_path / "bad", count=9)
    with bench.study:
        for _ in range(3):
            run = bench.next()
            bench.train(run, 90.0, epochs=1, state=FAILED, reason="no")
            bench.tuner.ended(run, FAILED)
        assert bench.next() == "end"
    assert "first 3 trials have failed" in bench.tuner.gave_up
    bench = Bench(tmp_path / "good", count=9)
    with bench.study:
        bench.end(bench.next(), 20.0)
        for _ in range(4):
            run = bench.next()
            bench.train(run, 90.0, epochs=1, state=FAILED, reason="no")
            bench.tuner.ended(run, FAILED)
        assert bench.next() not in (None, "end")
    assert bench.tuner.gave_up is None


@pytest.mark.parametrize("epochs", [39, 40])
def test_the_last_epoch_is_not_a_place_to_prune(tmp_path, epochs):
    bench = Bench(tmp_path, count=1, prune_after=20)
    with bench.study:
        run = bench.next()
        bench.train(run, 10.0, epochs=epochs, state=RUNNING)
        bench.tuner.moved(run)
        assert list(bench.study.trials()[0].steps) == ([39] if epochs == 39 else [])
