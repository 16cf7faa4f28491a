"""The tuner between the launch loop and a study, with hand-made run folders instead of training."""

import time
from types import SimpleNamespace

from studies import open_study, write_run

from experiments.config.make_spec import make_spec
from experiments.config.recipe import load_settings
from experiments.config.spec import Validation
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun
from experiments.tuning import trial as trials
from experiments.tuning import tuner as module
from experiments.tuning.tuner import Tuner

END = "end"


class Bench:
    """A study with a tuner, whose runs the tests write."""

    def __init__(self, folder, *, max_trials: int, seeds=(1000,), **options):
        self.runs_dir, self.seeds, self.results = folder / "runs", seeds, []
        self.study = open_study(folder, identity={})
        self.tuner = Tuner(
            self.study,
            max_trials,
            self.make_runs,
            on_trial_end=lambda trial, result: self.results.append(result),
            **options,
        )
        self.runs = self.tuner.runs()

    def make_runs(self, point: dict) -> list[PlannedRun]:
        profile, settings = load_settings("digits")
        data = SimpleNamespace(digest="d", complete=True, source="made up")
        split = Validation(fraction=0.5, indices_digest="i")
        settings = settings.with_parameters("cs-kd", point)
        specs = [
            make_spec("digits", data, profile, settings, "resnet10", "cs-kd", seed, validation=split)
            for seed in self.seeds
        ]
        return [PlannedRun(spec, RunFolder.of(spec, self.runs_dir), 10, 100, 100) for spec in specs]

    def next(self) -> PlannedRun | str | None:
        return next(self.runs, END)

    def end(self, run: PlannedRun, error: float = 50.0, epochs: int | None = None, state: str = DONE, **reason) -> None:
        write_run(run, error, epochs, state, **reason)
        self.tuner.ended(run, state)

    def states(self) -> list[str]:
        return [trial.state for trial in self.study.trials()]


def test_failed_seed_stops_the_others_and_fails_the_trial(tmp_path):
    bench = Bench(tmp_path, max_trials=1, seeds=(1000, 1001, 1002))
    with bench.study:
        first, second = bench.next(), bench.next()  # the third waits
        bench.end(first, 90.0, 2, FAILED, reason="failed: the loss is not finite")
        assert bench.tuner.should_stop(second)
        assert bench.states() == [trials.RUNNING]
        bench.tuner.ended(second, INTERRUPTED)
        assert bench.states() == [trials.FAILED]
        assert bench.next() == END
    assert "seed1000 failed: the loss is not finite" in bench.study.trials()[0].reason


def test_run_that_another_process_trains_is_tried_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    bench = Bench(tmp_path, max_trials=1)
    with bench.study:
        run = bench.next()
        bench.tuner.ended(run, RUNNING)
        assert bench.next() is None
        time.sleep(0.06)
        assert bench.next() is run
        bench.end(run, 20.0)
        assert bench.next() == END
    assert bench.states() == [trials.COMPLETE]


def test_interrupted_trial_continues_in_the_next_launch_and_others_go_on(tmp_path):
    bench = Bench(tmp_path, max_trials=2, seeds=(1000, 1001))
    with bench.study:
        interrupted, other_seed, *second_trial = (bench.next() for _ in range(4))
        bench.end(interrupted, 50.0, 7, INTERRUPTED)
        bench.end(other_seed, 20.0)
        for run in second_trial:
            bench.end(run, 30.0)
        assert bench.next() == END
    assert (bench.states(), bench.tuner.interrupted) == ([trials.RUNNING, trials.COMPLETE], 1)
    again = Bench(tmp_path, max_trials=2, seeds=(1000, 1001))
    with again.study:
        run = again.next()
        assert (run.spec.run_key, len(run.folder.epochs())) == (interrupted.spec.run_key, 7)


def test_deadline_stops_new_trials_and_finishes_started_ones(tmp_path):
    bench = Bench(tmp_path, max_trials=5, seeds=(1000, 1001))
    with bench.study:
        first = bench.next()
        bench.tuner.deadline = time.monotonic()
        second = bench.next()
        assert bench.next() is None
        bench.end(first)
        bench.end(second)
        assert bench.next() == END
    assert (bench.states(), bench.tuner.is_complete) == ([trials.COMPLETE], False)


def test_poor_trial_is_pruned_after_the_first_learning_rate_drop(tmp_path):
    bench = Bench(tmp_path, max_trials=5, prune_after=20)

    def stops_after(run: PlannedRun, error: float, epochs: int) -> bool:
        write_run(run, error, epochs, RUNNING)
        return bench.tuner.should_stop(run)

    with bench.study:
        for error in (10.0, 11.0, 12.0, 13.0):
            run = bench.next()
            assert not any(stops_after(run, error, epochs) for epochs in (21, 40))
            bench.end(run, error)
        poor = bench.next()
        assert not stops_after(poor, 80.0, 20)
        assert stops_after(poor, 80.0, 21)
        bench.tuner.ended(poor, INTERRUPTED)
        assert bench.next() == END
    assert bench.states() == [trials.COMPLETE] * 4 + [trials.PRUNED]
    assert bench.results[-1] == "pruned after 21 epochs"
    steps = [list(frozen.intermediate_values) for frozen in bench.study.study.trials]
    assert steps == [[21]] * 5  # not the last epoch, which cannot be pruned


def test_damaged_run_of_an_earlier_study_is_trained_again(tmp_path):
    first, second = Bench(tmp_path, max_trials=1), Bench(tmp_path / "later", max_trials=1)
    second.runs_dir = first.runs_dir
    with first.study:
        run = first.next()
        first.end(run)
    run.folder.metrics.write_text("{")
    with second.study:
        assert second.next().spec.run_key == run.spec.run_key
