"""Uploaded studies: trials of one and of several seeds, and trials that were trained again."""

import json
from datetime import datetime

import pytest
from run_folders import make_run, make_spec, points, tracked

from cskd.utils.errors import UserError
from experiments.runs.folder import INTERRUPTED
from experiments.tracking.studies import StudyTracker
from experiments.tuning.trial import COMPLETE, RUNNING, Trial

DAY = datetime(2026, 1, 1)


def make_trial(state: str, runs: dict[int, str], number: int = 0) -> Trial:
    metrics = {"top1_error": 20.0, "nll": 1.0, "ece": 11.0} if state == COMPLETE else {}
    values, ended = ((20.0,), DAY) if state == COMPLETE else (None, None)
    return Trial(number, state, {"lambda": 1.0}, values, metrics, runs, "", DAY, ended)


def upload(uri, tmp_path, *trials: Trial) -> None:
    best = trials[0] if trials[0].state == COMPLETE else None
    tracker = StudyTracker(uri, "study", lambda: (("error",), [*trials], best), tmp_path, tmp_path / "results")
    tracker.update(everything=True)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_trial_keeps_its_mlflow_run_with_every_epoch_once(seeds, uri, tmp_path):
    started = make_run(tmp_path, make_spec(0), INTERRUPTED, 2).run_key
    upload(uri, tmp_path, make_trial(RUNNING, {0: started} | {seed: "not started" for seed in seeds[1:]}))
    runs = {seed: make_run(tmp_path, make_spec(seed)).run_key for seed in seeds}
    for _ in range(2):
        upload(uri, tmp_path, make_trial(COMPLETE, runs))
    ((study,), (trial,)) = tracked(uri, kind="study"), tracked(uri, kind="trial")
    assert (trial.info.status, trial.data.tags["mlflow.parentRunId"]) == ("FINISHED", study.info.run_id)
    assert (trial.data.metrics["objective/error"], trial.data.metrics["mean/ece"]) == (20.0, 11.0)
    assert trial.data.metrics["minutes"] == 3.0 * len(seeds)
    for seed in seeds:
        prefix = f"seed{seed}/" if len(seeds) > 1 else ""
        assert points(uri, trial, f"{prefix}test/ece") == [(0, 10.0), (1, 10.0), (2, 10.0)]
    assert (study.data.tags["best_trial"], json.loads(study.data.tags["best_metrics"])["error"]) == ("0", 20.0)
    assert (study.data.tags["trials.complete"], study.data.params["dataset"]) == ("1", "digits")


def test_trial_that_was_trained_again_is_another_mlflow_run(uri, tmp_path):
    runs = {seed: make_run(tmp_path, make_spec(seed)).run_key for seed in (0, 1)}
    upload(uri, tmp_path, make_trial(RUNNING, runs))
    (first,) = tracked(uri, kind="trial")
    make_run(tmp_path, make_spec(0), training="second", ece=12.0)
    upload(uri, tmp_path, make_trial(COMPLETE, runs))
    trials = {run.info.run_id: run for run in tracked(uri, kind="trial")}
    assert trials.pop(first.info.run_id).to_dictionary() == first.to_dictionary()
    (second,) = trials.values()
    assert points(uri, second, "seed0/test/ece") == [(0, 12.0), (1, 12.0), (2, 12.0)]


def test_unreadable_run_does_not_stop_the_other_trials(uri, tmp_path):
    trials = [make_trial(COMPLETE, {0: make_run(tmp_path, make_spec(seed)).run_key}, seed) for seed in (0, 1)]
    (tmp_path / trials[0].runs[0] / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        upload(uri, tmp_path, *trials)
    finished = [run.data.tags["trial"] for run in tracked(uri, kind="trial") if run.info.status == "FINISHED"]
    assert (finished, tracked(uri, kind="study")[0].data.tags["trials.complete"]) == (["1"], "2")
