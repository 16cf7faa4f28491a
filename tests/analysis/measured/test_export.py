"""Tracked results as CSV files: which rows are written, and how they are merged with earlier ones."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import MINI_SETTINGS, Grid

from analysis.claims.columns import VERDICT_COLUMNS
from analysis.load.pools import pools
from analysis.measured.csv_files import EVALUATED, RUN_COLUMNS, RUNS, read_rows
from analysis.measured.export import evaluated_numbers, run_rows
from analysis.stats.run_evaluations import evaluations
from analysis.tables.format import to_csv
from analysis.tables.runs import ENERGY
from cskd.evaluate.calibration import fit_temperature
from cskd.evaluate.evaluate_run import evaluate
from cskd.evaluate.evaluation import CROSS_FITTED
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import expected_calibration_error, negative_log_likelihood
from cskd.utils.errors import UserError


def rows_of(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def lines_of(path):
    return path.read_text().splitlines()


def test_finished_runs_of_every_pool_except_the_demo_are_written_in_order(exported):
    folder, printed = exported
    names = {path.name for path in folder.iterdir()}
    assert names == {"runs-paper.csv", "verdicts-paper.csv", "runs-mini.csv", "verdicts-mini.csv"}
    assert tuple(rows_of(folder / "runs-mini.csv")) == RUN_COLUMNS
    assert tuple(rows_of(folder / "verdicts-mini.csv")) == VERDICT_COLUMNS
    assert all("/tmp" not in path.read_text() for path in folder.iterdir())
    rows = rows_of(folder / "runs-paper.csv")
    assert (set(rows.state), len(rows)) == ({"done"}, 10)
    order = list(zip(rows.architecture, rows.dataset, rows.method, rows.seed.astype(int), strict=True))
    assert order == sorted(order)
    assert "paper: cub200/resnet18/cross-entropy/seed2 is running: not used." in printed
    assert "cifar100/resnet10/cs-kd/seed1 has no predictions.npz: not evaluated." in printed
    assert "10 runs: 10 added, 0 replaced, 0 unchanged (0 not tracked here)." in printed


def test_rows_have_tracked_and_evaluated_values_and_facts(exported, export, store):
    rows = rows_of(exported[0] / "runs-mini.csv").set_index("run_key")
    first = rows.loc["cifar100/resnet10/cross-entropy:0"]
    assert (first.last_top1_error, first.last_ece, first.best_top1_error) == ("50", "17", "49.875")
    assert (first.minutes, first[ENERGY], first.grids) == ("1.5", "", "table1")
    facts = (first.comparable, first.comparable_reason, first.tuned, first.overrides)
    assert facts == ("false", "profile mini", "false", "[]")
    assert (first.device, first.threads, first.precision, first.compiled) == ("cpu", "1", "fp32", "false")
    assert (first["subset.classes"], first.width, first["schedule.epochs"]) == ("20", "16", "60")
    [mini] = [pool for pool in pools(store.load()) if pool.name == "mini"]
    evaluated, _ = evaluations(mini.done, store, export.cache / ".evaluations", export.cache)
    one = evaluated["cifar100/resnet10/cross-entropy:0"]
    assert float(first.ece_cross_fitted) == pytest.approx(one.metrics[CROSS_FITTED]["ece"], rel=1e-7)
    assert float(first.scaled_temperature) == pytest.approx(one.temperatures[CROSS_FITTED], rel=1e-7)
    assert first.temperature_training_split == ""
    assert rows.last_ece["cifar100/resnet10/cs-kd:0"] == ""
    assert rows.last_nll["cifar100/resnet10/cs-kd:2"] == "inf"
    assert (rows.loc["cifar100/resnet10/cs-kd:1", list(EVALUATED)] == "").all()


def test_scaled_columns_have_the_temperature_of_scaled_nll():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 25)
    logits, unused = (rng.normal(size=(100, 4)) + np.eye(4)[labels] for _ in range(2))
    predictions = Predictions(logits, rng.normal(size=(100, 3)), labels, np.arange(100), tuple("abcd"))
    without = evaluated_numbers(evaluate(predictions))
    assert without["scaled_ece"] == without["ece_cross_fitted"]
    numbers = evaluated_numbers(evaluate(replace(predictions, unused=(4 * unused, labels))))
    assert numbers["scaled_temperature"] == pytest.approx(fit_temperature(4 * unused, labels))
    scaled = logits / numbers["scaled_temperature"]
    assert numbers["scaled_ece"] == pytest.approx(100 * expected_calibration_error(scaled, labels))
    assert numbers["scaled_nll"] == pytest.approx(negative_log_likelihood(scaled, labels))


def test_tuning_overrides_and_energy_are_columns():
    grid = Grid("any", "mini", MINI_SETTINGS, tuned=True, overrides=("width=8", "a=[1, 2]"))
    run = grid.run(grid.cell("d", "cs-kd", tuned="temperature 6"), 0, {"top1_error": 1.0})
    run.metrics.append((ENERGY, 2.5, 0))
    row = run_rows(pools([grid.experiment()])[0], {}).iloc[0]
    assert (row.tuned, row.tuned_values) == ("true", "temperature 6")
    assert json.loads(row.overrides) == ["a=[1, 2]", "width=8"]
    assert row[ENERGY] == 2.5


def test_same_runs_give_the_same_bytes(export, exported, tmp_path):
    for counts in ("7 added, 0 replaced, 0 unchanged", "0 added, 0 replaced, 7 unchanged"):
        assert f"7 runs: {counts} (0 not tracked here)." in export(tmp_path, "--pool", "mini")
        for name in ("runs-mini.csv", "verdicts-mini.csv"):
            assert (tmp_path / name).read_bytes() == (exported[0] / name).read_bytes()


def test_rows_of_other_machines_keep_their_bytes_and_later_runs_replace_earlier_ones(export, exported, tmp_path):
    header, first, second, third, *others = lines_of(exported[0] / "runs-mini.csv")
    ended = rows_of(exported[0] / "runs-mini.csv").ended
    elsewhere = first.replace("cifar100/resnet10/cross-entropy:0", "elsewhere").replace(",50,", ",50.000,")
    assert ",50.000," in elsewhere
    later = second.replace(ended[1], "2026-12-31T00:00:00Z").replace("1111111111", "later")
    earlier = third.replace(ended[2], "2026-01-01T00:00:00Z").replace("1111111111", "earlier")
    (tmp_path / "runs-mini.csv").write_text("\n".join([header, elsewhere, later, earlier]) + "\n")
    printed = export(tmp_path, "--pool", "mini")
    assert "8 runs: 5 added, 1 replaced, 2 unchanged (1 not tracked here)." in printed
    assert lines_of(tmp_path / "runs-mini.csv") == [header, first, elsewhere, later, third, *others]


def test_evaluation_stays_if_the_predictions_were_lost(export, exported, tmp_path):
    rows = rows_of(exported[0] / "runs-mini.csv")
    lost = rows.run_key == "cifar100/resnet10/cs-kd:1"  # has no predictions in the store
    rows.loc[lost, "feature_spread"] = "0.5"
    (tmp_path / "runs-mini.csv").write_text(to_csv(rows))
    export(tmp_path, "--pool", "mini")
    assert rows_of(tmp_path / "runs-mini.csv").feature_spread[lost].item() == "0.5"


def test_verdicts_stay_together_if_one_would_lose_evidence(export, exported, tmp_path):
    def outcomes():
        rows = rows_of(tmp_path / "verdicts-mini.csv").set_index("id")
        return rows[rows.dataset == "cifar100"].outcome[["error-cross-entropy", "ece-cross-entropy"]].tolist()

    rows = rows_of(exported[0] / "verdicts-mini.csv")
    error, ece = (
        (rows.id == name) & (rows.dataset == "cifar100") for name in ("error-cross-entropy", "ece-cross-entropy")
    )
    [expected] = rows.outcome[error]
    rows.loc[error, "outcome"] = "earlier"
    (tmp_path / "verdicts-mini.csv").write_text(to_csv(rows))
    assert "not replaced" not in export(tmp_path, "--pool", "mini")
    assert outcomes() == [expected, "holds"]

    rows.loc[ece, ["outcome", "n_against"]] = ["contradicted", "5"]
    (tmp_path / "verdicts-mini.csv").write_text(to_csv(rows))
    printed = export(tmp_path, "--pool", "mini")
    assert outcomes() == ["earlier", "contradicted"]
    [line] = [line for line in printed.splitlines() if "not replaced" in line]
    assert "ece-cross-entropy cifar100 resnet10 (seeds 2/5, now 2/3): REPLACE=1 (--replace) replaces all." in line
    assert "not replaced" not in export(tmp_path, "--pool", "mini", "--replace")
    assert outcomes() == [expected, "holds"]


@pytest.mark.parametrize("name", ["seeds_and_images_low", "effect"])
def test_verdicts_stay_if_one_would_lose_its_interval_or_comparison(export, exported, tmp_path, name):
    rows = rows_of(exported[0] / "verdicts-mini.csv")
    rows.loc[rows[rows[name] == ""].index[0], ["outcome", name]] = ["holds", "-1"]
    (tmp_path / "verdicts-mini.csv").write_text(to_csv(rows))
    assert "not replaced" in export(tmp_path, "--pool", "mini")
    assert rows_of(tmp_path / "verdicts-mini.csv").equals(rows)


def test_verdicts_are_on_all_runs_of_the_file(export, exported, tmp_path):
    rows = rows_of(exported[0] / "runs-mini.csv")
    elsewhere = rows[rows.run_key == "cifar100/resnet10/cross-entropy:0"].assign(run_key="elsewhere", seed="9")
    (tmp_path / "runs-mini.csv").write_text(to_csv(pd.concat([rows, elsewhere])))
    export(tmp_path, "--pool", "mini")
    here, all_runs = (rows_of(folder / "verdicts-mini.csv").set_index("id") for folder in (exported[0], tmp_path))
    before, after = (found[found.dataset == "cifar100"].loc["error-cross-entropy"] for found in (here, all_runs))
    assert (before.seeds_against, after.seeds_against) == ("0 1 2", "0 1 2 9")


def test_pools_without_finished_runs_write_nothing(export, tmp_path):
    assert "demo: no finished run: nothing written." in export(tmp_path, "--pool", "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("run_key", "key", 1), "has no column run_key: restore it, or remove it"),
        (lambda text: text + "=======\n", "has rows without cell_key, profile, dataset"),
        (lambda text: text + text.splitlines()[-1] + "\n", "twice: remove one of the two rows"),
    ],
)
def test_damaged_file_is_an_error(exported, tmp_path, change, message):
    path = tmp_path / "runs-mini.csv"
    path.write_text(change((exported[0] / "runs-mini.csv").read_text()))
    with pytest.raises(UserError, match=rf"runs-mini\.csv.*({message})"):
        read_rows(path, RUNS)
