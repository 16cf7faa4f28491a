"""What is tracked, as checked-in data: which rows, merged how, and that the same runs give the same bytes."""

import io

import pandas as pd
import pytest
from made_up_pool import made_up_pool
from rich.console import Console

from analysis.commands import measured
from analysis.commands.measured import evaluated_numbers, measured_frame, write
from analysis.load.pools import pools
from analysis.measured.csv_files import (
    EVALUATED,
    RUN_COLUMNS,
    RUN_KEY,
    VERDICT_COLUMNS,
    merge,
    read_runs,
    read_verdicts,
)
from analysis.stats.evaluation import CROSS_FITTED, evaluations
from analysis.tables.calibration import scaling_table
from analysis.tables.format import to_csv
from analysis.tables.runs import ENERGY
from cskd.utils.errors import UserError

COMMIT = "1111111111aaaaaaaaaa"  # of the made-up runs


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder for evaluations, shared: they are computed once."""
    return tmp_path_factory.mktemp("results")


def run(uri, folder, evaluated, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        output = io.StringIO()
        patch.setattr("sys.stdout", output)
        assert measured.main(["--measured-dir", str(folder), "--results-dir", str(evaluated), *arguments]) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def written(store_uri, evaluated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    return folder, run(store_uri, folder, evaluated)


@pytest.fixture(scope="module")
def mini(store):
    return next(pool for pool in pools(store.load()) if pool.name == "mini")


def rows_of(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def lines(path):
    return path.read_text().splitlines()


def test_every_pool_but_the_demonstration_has_its_two_files(written):
    folder, _ = written
    names = {path.name for path in folder.iterdir()}
    assert names == {"runs-paper.csv", "verdicts-paper.csv", "runs-mini.csv", "verdicts-mini.csv"}
    assert tuple(rows_of(folder / "runs-mini.csv")) == RUN_COLUMNS
    assert tuple(rows_of(folder / "verdicts-mini.csv")) == VERDICT_COLUMNS


def test_only_finished_runs_are_written_and_the_others_named(written):
    folder, said = written
    rows = rows_of(folder / "runs-paper.csv")
    assert set(rows.state) == {"done"}
    assert len(rows) == 10
    assert "paper: cub200/resnet18/cross-entropy/seed2 is running: not used." in said
    assert "(the loss is NaN & 100% lost at epoch_3): not used." in said
    assert "cifar100/resnet10/cs-kd/seed1 has no predictions.npz: not evaluated." in said
    assert "10 runs: 10 added, 0 replaced, 0 kept (0 not tracked here)." in said


def test_rows_are_ordered_by_network_dataset_method_and_seed(written):
    folder, _ = written
    rows = rows_of(folder / "runs-paper.csv")
    order = list(zip(rows.architecture, rows.dataset, rows.method, rows.seed.astype(int), strict=True))
    assert order == sorted(order)
    frame = measured_frame(made_up_pool({"d/resnet18/cs-kd": {10: 1.0, 9: 2.0}}), {})
    assert list(frame.seed) == [9, 10]


def test_the_same_runs_give_the_same_bytes_written_anew_or_over(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    run(store_uri, tmp_path, evaluated, "--pool", "mini")
    again = run(store_uri, tmp_path, evaluated, "--pool", "mini")
    for name in ("runs-mini.csv", "verdicts-mini.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert "6 runs: 0 added, 0 replaced, 6 kept (0 not tracked here)." in again


def test_the_files_hold_no_path(written):
    folder, _ = written
    for path in folder.iterdir():
        assert "/tmp" not in path.read_text()
        assert str(folder.parent) not in path.read_text()


def test_values_are_what_is_tracked_and_evaluated(written, mini, store, evaluated):
    folder, _ = written
    rows = rows_of(folder / "runs-mini.csv").set_index("run_key")
    first = rows.loc["cifar100/resnet10/cross-entropy:0"]
    assert (first.last_top1_error, first.last_ece, first.best_top1_error) == ("50", "17", "49.875")
    assert (first.minutes, first[ENERGY], first.grids) == ("1.5", "", "table1")
    assert first.trained == "20 classes x 100 training images, resnet10 of width 16, 32 px, 60 epochs"
    found, _ = evaluations(mini.done, store, evaluated / ".evaluations", evaluated / ".predictions")
    one = found["cifar100/resnet10/cross-entropy:0"]
    assert float(first.ece_cross_fitted) == pytest.approx(one.metrics[CROSS_FITTED]["ece"], rel=1e-7)
    assert first.temperature_training_split == ""  # a run that kept no predictions of training images
    table = scaling_table(mini, found).frame.set_index(["method", "temperature"])
    own = rows[rows.method == "cross-entropy"]
    assert own.nll_cross_fitted.astype(float).mean() == pytest.approx(
        table.nll["cross-entropy", CROSS_FITTED], rel=1e-7
    )


def test_what_has_no_value_is_empty_and_infinity_says_so(written):
    folder, _ = written
    rows = rows_of(folder / "runs-mini.csv").set_index("run_key")
    assert rows.last_ece["cifar100/resnet10/cs-kd:0"] == ""
    assert rows.last_nll["cifar100/resnet10/cs-kd:2"] == "inf"
    assert (rows.loc["cifar100/resnet10/cs-kd:1", list(EVALUATED)] == "").all()
    assert set(evaluated_numbers(None)) == set(EVALUATED)


def test_energy_is_written_where_it_was_measured():
    pool = made_up_pool({"d/resnet18/cs-kd": {0: 1.0}})
    pool.runs[ENERGY] = 2.5
    assert list(measured_frame(pool, {})[ENERGY]) == [2.5]


def test_a_run_of_another_machine_stays_byte_by_byte(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    header, first, *others = lines(folder / "runs-mini.csv")
    elsewhere = first.replace("cifar100/resnet10/cross-entropy:0", "elsewhere").replace(",50,", ",50.000,")
    assert elsewhere.startswith("elsewhere,") and ",50.000," in elsewhere
    (tmp_path / "runs-mini.csv").write_text("\n".join([header, elsewhere]) + "\n")
    said = run(store_uri, tmp_path, evaluated, "--pool", "mini")
    assert "7 runs: 6 added, 0 replaced, 1 kept (1 not tracked here)." in said
    assert lines(tmp_path / "runs-mini.csv") == [header, first, elsewhere, *others]


def test_of_the_same_run_the_one_that_ended_later_counts(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    header, first, second, third, *_ = lines(folder / "runs-mini.csv")
    ended = rows_of(folder / "runs-mini.csv").ended
    later = second.replace(ended[1], "2026-12-31T00:00:00Z").replace(COMMIT, "later")
    earlier = third.replace(ended[2], "2026-01-01T00:00:00Z").replace(COMMIT, "earlier")
    (tmp_path / "runs-mini.csv").write_text("\n".join([header, first, later, earlier]) + "\n")
    said = run(store_uri, tmp_path, evaluated, "--pool", "mini")
    assert "6 runs: 3 added, 1 replaced, 2 kept (0 not tracked here)." in said
    assert lines(tmp_path / "runs-mini.csv")[:4] == [header, first, later, third]


def test_a_run_that_lost_its_predictions_keeps_what_they_came_to(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    rows = rows_of(folder / "runs-mini.csv")
    lost = rows.run_key == "cifar100/resnet10/cs-kd:1"  # has none in the store
    rows.loc[lost, "feature_spread"] = "0.5"
    (tmp_path / "runs-mini.csv").write_text(to_csv(rows))
    run(store_uri, tmp_path, evaluated, "--pool", "mini")
    assert rows_of(tmp_path / "runs-mini.csv").feature_spread[lost].item() == "0.5"


def test_a_file_of_an_earlier_version_gets_the_columns_that_it_lacks(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    rows = rows_of(folder / "runs-mini.csv").drop(columns=["trained", "nll_cross_fitted"])
    rows.loc[0, "run_key"] = "elsewhere"
    (tmp_path / "runs-mini.csv").write_text(to_csv(rows.assign(of_a_later_version="x")))
    said = run(store_uri, tmp_path, evaluated, "--pool", "mini")
    assert "mini.csv is of an earlier version, without trained, nll_cross_fitted: empty in the rows that stay." in said
    after = rows_of(tmp_path / "runs-mini.csv")
    assert list(after) == [*RUN_COLUMNS, "of_a_later_version"]
    kept = after[after.run_key == "elsewhere"].iloc[0]
    assert (kept.trained, kept.nll_cross_fitted, kept.of_a_later_version) == ("", "", "x")
    assert (after.trained[after.run_key != "elsewhere"] != "").all()


def test_a_verdict_of_what_is_not_tracked_here_stays_and_fewer_seeds_are_named(store_uri, written, evaluated, tmp_path):
    folder, _ = written
    rows = rows_of(folder / "verdicts-mini.csv").set_index("id")
    assert list(rows.outcome[["error-adacos", "ece-cross-entropy"]]) == ["not run", "undecided"]
    rows.loc["error-adacos", ["outcome", "n_method"]] = ["holds", "3"]
    rows.loc["ece-cross-entropy", ["outcome", "n_against"]] = ["contradicted", "5"]
    (tmp_path / "verdicts-mini.csv").write_text(to_csv(rows.reset_index()))
    said = run(store_uri, tmp_path, evaluated, "--pool", "mini")
    after = rows_of(tmp_path / "verdicts-mini.csv").set_index("id")
    assert list(after.outcome[["error-adacos", "ece-cross-entropy"]]) == ["holds", "undecided"]
    assert "ece-cross-entropy cifar100 resnet10: the verdict is on 2/3 seeds, the one before was on 2/5." in said
    assert list(after.index) == list(rows.index)


def test_experiments_and_pools_can_be_chosen(store_uri, evaluated, tmp_path):
    run(store_uri, tmp_path, evaluated, "--experiment", "table1-mini")
    assert {path.name for path in tmp_path.iterdir()} == {"runs-mini.csv", "verdicts-mini.csv"}
    with pytest.raises(UserError, match="unknown pool 'minni': choose from demo, mini, paper"):
        run(store_uri, tmp_path, evaluated, "--pool", "minni")


def test_a_pool_without_a_finished_run_writes_nothing(store_uri, evaluated, tmp_path):
    assert "demo: no finished run: nothing written." in run(store_uri, tmp_path, evaluated, "--pool", "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_demonstrations_alone_is_said():
    demo = made_up_pool({"digits/resnet10/cs-kd": {0: 1.0}}, profile="demo", experiment="demo")
    with pytest.raises(UserError, match="only the pool demo is tracked: --pool demo"):
        measured._chosen([demo], None)


def test_a_folder_that_cannot_be_written_is_named(store_uri, evaluated, tmp_path):
    blocked = tmp_path / "measured"
    blocked.write_text("a file")
    with pytest.raises(UserError, match=r"measured.* cannot be written \(.*--measured-dir"):
        run(store_uri, blocked, evaluated)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace("run_key", "key", 1), "has rows without run_key"),
        (lambda text: "\n".join(["<<<<<<< ours", *text.splitlines()]), "cannot be read|has rows without"),
        (lambda text: text + "=======\n", "has rows without cell_key, dataset"),
        (lambda text: text + text.splitlines()[-1] + "\n", "twice: remove one of the two rows"),
    ],
)
def test_a_file_that_is_not_one_is_named(written, tmp_path, change, said):
    folder, _ = written
    path = tmp_path / "runs-mini.csv"
    path.write_text(change((folder / "runs-mini.csv").read_text()))
    with pytest.raises(UserError, match=rf"runs-mini\.csv.*({said})"):
        read_runs(path)


def test_a_file_of_verdicts_is_read_as_it_was_written(written):
    folder, _ = written
    rows, lacking = read_verdicts(folder / "verdicts-mini.csv")
    assert lacking == ()
    assert to_csv(rows) == (folder / "verdicts-mini.csv").read_text()


def test_merging_counts_what_it_did():
    file = pd.DataFrame({"run_key": ["a", "b", "c"], "value": ["1", "2", "3"]})
    new = pd.DataFrame({"run_key": ["b", "c", "d"], "value": ["2", "4", "5"]})
    merged = merge(new, file, RUN_KEY, lambda row, before: True)
    assert dict(zip(merged.rows.run_key, merged.rows.value, strict=True)) == {"a": "1", "b": "2", "c": "4", "d": "5"}
    assert merged.message == "1 added, 1 replaced, 2 kept"
    assert merge(new, file, RUN_KEY, lambda row, before: False).message == "1 added, 0 replaced, 3 kept"


def test_names_with_commas_quotes_and_bars_survive(tmp_path):
    pool = made_up_pool({'a "b",c|d/resnet18/cs-kd': {0: 1.0}}, profile="mini", experiment="table1-mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "evaluations", lambda *_: ({}, []))  # no store has its predictions
        for _ in range(2):
            write(pool, None, tmp_path, tmp_path, Console(file=io.StringIO()))
    [dataset] = rows_of(tmp_path / "runs-mini.csv").dataset
    assert dataset == 'a "b",c|d'
