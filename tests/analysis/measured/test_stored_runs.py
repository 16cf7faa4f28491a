"""Runs of a file that are judged with those tracked here."""

from dataclasses import replace

import pytest
from builders import make_evaluations, make_pool
from pandas.testing import assert_frame_equal

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import HOLDS, NOT_RUN, UNDECIDED, judge, verdict_frame
from analysis.measured.csv_files import RUNS, read_rows
from analysis.measured.export import run_rows
from analysis.measured.stored_runs import with_stored_runs
from analysis.tables.format import to_csv
from cskd.utils.errors import UserError

CS_KD, CROSS_ENTROPY = "cifar100/resnet18/cs-kd", "cifar100/resnet18/cross-entropy"
LOW, HIGH = {0: 22.1, 1: 21.8, 2: 22.2}, {0: 24.2, 1: 24.9, 2: 24.4}
SETTINGS = {"subset.draw": "seed", "width": "32"}


def metrics_of(errors):
    return {seed: {"top1_error": error, "ece": error / 3} for seed, error in errors.items()}


def pool_of(**cells):
    names = {"cs_kd": CS_KD, "cross_entropy": CROSS_ENTROPY}
    cells = {names[name]: metrics_of(errors) for name, errors in cells.items()}
    return make_pool(cells, "small", settings=dict.fromkeys(cells, SETTINGS))


@pytest.fixture
def stored(tmp_path):
    """Write the rows of a pool to a file; return (rows, path)."""

    def write(pool, change=lambda text: text, evaluations=None):
        path = tmp_path / "runs-small.csv"
        path.write_text(change(to_csv(run_rows(pool, evaluations or {}))))
        return read_rows(path, RUNS), path

    return write


def verdicts_of(pool, evaluations):
    return verdict_frame(judge(pool, load_claims(), evaluations)).set_index("id")


def test_verdicts_are_the_same_whether_runs_are_tracked_or_in_the_file(stored):
    everything = pool_of(cs_kd=LOW, cross_entropy=HIGH)
    evaluated = make_evaluations(everything, spread=0.1)
    evaluations = {key: replace(one, replicates={}) for key, one in evaluated.items()}
    rows, path = stored(everything, evaluations=evaluations)
    expected = verdicts_of(everything, evaluations)
    assert expected.outcome[["error-cross-entropy", "scaled-nll-cross-entropy"]].tolist() == [HOLDS, HOLDS]
    for tracked in (pool_of(cs_kd=LOW), pool_of(cross_entropy=HIGH), pool_of(cs_kd={0: 22.1}, cross_entropy=HIGH)):
        joined, notes = with_stored_runs(tracked, rows, path)
        assert notes == []
        known = {key: evaluations[key] for key in tracked.done.run_key}
        assert_frame_equal(verdicts_of(joined, known), expected, rtol=1e-6)


def test_interval_over_test_images_needs_the_predictions_of_all_runs(stored):
    everything = pool_of(cs_kd=LOW, cross_entropy=HIGH)
    evaluations = make_evaluations(everything, spread=2)
    rows, path = stored(everything, evaluations=evaluations)
    tracked = pool_of(cs_kd=LOW)
    joined, _ = with_stored_runs(tracked, rows, path)
    known = {key: evaluations[key] for key in tracked.done.run_key}
    [complete, partly] = (verdicts_of(pool, of) for pool, of in ((everything, evaluations), (joined, known)))
    low = complete.seeds_and_images_low["error-cross-entropy"]
    assert low < complete.seeds_low["error-cross-entropy"] == partly.seeds_low["error-cross-entropy"]
    assert partly.seeds_and_images_low.isna().all()


def test_runs_are_compared_only_if_their_settings_are_known_and_equal(stored):
    rows, path = stored(
        pool_of(cross_entropy=HIGH), lambda text: text.replace('""width"": ""32""', '""width"": ""16""')
    )
    joined, _ = with_stored_runs(pool_of(cs_kd=LOW), rows, path)
    found = verdicts_of(joined, {}).loc["error-cross-entropy"]
    assert (found.outcome, found.reason, found.settings) == (UNDECIDED, "settings differ", "width")
    joined, notes = with_stored_runs(pool_of(cs_kd=LOW), rows.assign(settings=""), path)
    assert notes == [f"3 runs of {path} without settings: not compared with others."]
    assert verdicts_of(joined, {}).outcome["error-cross-entropy"] == NOT_RUN


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("settings", '"width": "32"}', "column settings: .*: correct it"),
        ("settings", '["32"]', "column settings: not a JSON object of texts: correct it"),
        ("settings", '{"width": 32}', "column settings: not a JSON object of texts: correct it"),
        ("seed", "0.5", "column seed: not all are whole numbers: correct it"),
    ],
)
def test_damaged_row_is_an_error(stored, column, text, message):
    rows, path = stored(pool_of(cross_entropy=HIGH))
    with pytest.raises(UserError, match=rf"runs-small\.csv, {message}"):
        with_stored_runs(pool_of(cs_kd=LOW), rows.assign(**{column: text}), path)


def test_finished_run_of_the_file_counts_if_its_run_here_is_unfinished(stored):
    rows, path = stored(pool_of(cs_kd=LOW, cross_entropy=HIGH))
    cells = {CS_KD: metrics_of(LOW) | {2: "failed"}, CROSS_ENTROPY: metrics_of(HIGH)}
    tracked = make_pool(cells, "small", settings=dict.fromkeys(cells, SETTINGS))
    joined, _ = with_stored_runs(tracked, rows, path)
    assert verdicts_of(joined, {}).seeds_method["error-cross-entropy"] == "0 1 2"
