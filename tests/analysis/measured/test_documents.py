"""Generated tables of the documentation: they show the files' numbers, and documents are updated between markers."""

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_evaluations, make_pool

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import judge
from analysis.commands import readme
from analysis.measured.csv_files import RUNS, read_rows, runs_path, verdicts_path
from analysis.measured.documents import table
from analysis.measured.export import run_rows
from analysis.measured.make_commands import make_commands
from analysis.measured.results_tables import paper_order, results, verdicts
from analysis.tables.format import to_csv
from analysis.tables.verdicts import verdict_frame
from cskd.utils.errors import UserError
from cskd.utils.numbers import ABSENT, mean_std_text
from experiments.config.grid import load_grid, load_grid_settings

ROOT = Path(__file__).resolve().parents[3]
MEASURED = ROOT / "results" / "measured"
MARKED = "# Title\n\n<!-- begin generated: {} -->\n{}<!-- end generated -->\n\nBelow.\n"


def test_documents_show_the_checked_in_files(monkeypatch, capsys):
    """If this fails, run ``make readme``."""
    monkeypatch.chdir(ROOT)
    status = readme.main(["--check"])
    assert status == 0, capsys.readouterr().err


def test_answer_has_six_rows_of_numbers_and_verdicts():
    rows = rows_of(table("answer", MEASURED, ROOT))[2:]
    assert [row[0].split(",")[0] for row in rows] == [
        "cifar100",
        "tinyimagenet",
        "cub200",
        "dogs",
        "tinyimagenet",
        "cub200",
    ]
    assert [row[0].split(", ")[2] for row in rows] == ["60 epochs"] * 4 + ["200 epochs"] * 2
    numbers = ((49.33, 2.37), (45.37, 1.64), (16.48, 0.64), (4.94, 0.83))
    assert rows[0][1:] == [*(mean_std_text(*number, 2) for number in numbers), "holds; holds"]


@pytest.mark.parametrize("path", sorted(MEASURED.glob("runs-*.csv")), ids=lambda path: path.stem)
def test_make_commands_train_exactly_the_checked_in_runs(path):
    runs = read_rows(path, RUNS)
    planned = []
    for command in make_commands(runs):
        _, target, *variables = shlex.split(command)
        chosen = {name.lower(): text.split() for name, text in (variable.split("=", 1) for variable in variables)}
        [profile] = chosen.pop("profile", ["paper"])
        assert (chosen.pop("tuned", []) == ["1"]) == path.stem.endswith("-tuned")
        assert set(runs.threads) == set(chosen.pop("omp_num_threads"))
        overrides = tuple(chosen.pop("set", []))
        assert len(overrides) == (2 if "custom" in path.stem else 0)
        grid = load_grid(target.removeprefix("reproduce-"), **chosen)
        _, settings = load_grid_settings(grid, profile, overrides)
        for dataset, network in itertools.product(grid.datasets, grid.architectures):
            trained = settings[dataset].resolve_architecture(network)
            planned += itertools.product([trained], [dataset], grid.methods, map(str, grid.seeds))
    assert sorted(planned) == sorted(zip(runs.architecture, runs.dataset, runs.method, runs.seed, strict=True))


def test_make_commands_cross_datasets_methods_and_seeds():
    names = ("architecture", "dataset", "method", "seed", "profile", "grids")
    rows = [("resnet10", d, m, s, "mini", "table3 table1") for d in ("a", "b") for m in ("cs-kd", "kd") for s in (0, 1)]
    rows += [("resnet10", "a", "mixup", 2, "mini", "table3"), ("resnet10", "a", "kd", 7, "mini", "train")]
    runs = pd.DataFrame(rows, columns=names).assign(threads="", tuned="false", overrides="[]")
    crossed = 'make reproduce-table1 PROFILE=mini DATASETS="a b" ARCHITECTURES=resnet10 METHODS="cs-kd kd" SEEDS="0 1"'
    assert make_commands(runs) == [
        "make train DATASET=a METHOD=kd ARCHITECTURE=resnet10 SEED=7 PROFILE=mini",
        crossed,
        "make reproduce-table3 PROFILE=mini DATASETS=a ARCHITECTURES=resnet10 METHODS=mixup SEEDS=2",
    ]
    threads = runs.assign(threads=[str(seed + 1) for seed in runs.seed])
    by_threads = [crossed.replace('"0 1"', f"{seed} OMP_NUM_THREADS={seed + 1}") for seed in (0, 1)]
    assert set(by_threads) < set(make_commands(threads))
    changed = runs.assign(tuned="true", overrides='["width=8", "schedule.milestones=[1,2]"]')
    assert f'{crossed} TUNED=1 SET="width=8 schedule.milestones=[1,2]"' in make_commands(changed)
    for unsafe in ('["schedule.milestones=[1, 2]"]', '["data.reader=$(true)"]'):
        assert make_commands(runs.assign(overrides=unsafe)) == []
    assert make_commands(runs.assign(grids="")) == []
    assert make_commands(runs.assign(grids="demo", profile="demo")) == ["make demo"]


def save(pool, folder, evaluations=None):
    """Write the two files of a pool as ``make measured`` does."""
    runs_path(folder, pool.name).write_text(to_csv(run_rows(pool, {})))
    frame = verdict_frame(judge(pool, load_claims(), evaluations or {}))
    verdicts_path(folder, pool.name).write_text(to_csv(frame))
    return folder


def cells_of(place, **errors):
    """Return ``{"cifar100/resnet10/cs-kd": {seed: metrics}}``; each metric is a multiple of the error."""
    factors = {"top1_error": 1.0, "ece": 0.25, "nll": 0.05, "recall_at_1": 0.9}
    return {
        f"{place}/{method.replace('_', '-')}": {
            seed: {name: factor * error for name, factor in factors.items()} for seed, error in enumerate(values)
        }
        for method, values in errors.items()
    }


@pytest.fixture
def mini(tmp_path):
    """A folder with the files of a mini pool of two datasets."""
    cells = cells_of("cub200/resnet10", mixup=[60.0], cs_kd=[44.0, 45.0, 47.5], cross_entropy=[50.0, 52.0, 51.0])
    pool = make_pool(cells | cells_of("cifar100/resnet10", cross_entropy=[50.0, 51.0], cs_kd=[49.0, 52.5]), "mini")
    return save(pool, tmp_path, make_evaluations(pool, 0.5))


def rows_of(text):
    """Return the cells of every line of the tables in a text."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]


def test_results_show_mean_and_std_over_seeds(mini):
    rows = {row[0]: row for row in rows_of(results("mini", mini, mini).split("**cub200, resnet10**")[1])}
    errors = np.array([44.0, 45.0, 47.5])
    assert rows["cs-kd"][1] == mean_std_text(errors.mean(), errors.std(ddof=1), 2)
    assert rows["cs-kd"][3] == mean_std_text(11.38, 0.45, 2)
    assert (rows["cs-kd"][2], rows["cs-kd"][5], rows["cs-kd"][7]) == (ABSENT, ABSENT, "3")
    assert (rows["mixup"][1], rows["mixup"][7]) == ("60.00", "1")


def test_mean_over_fewer_seeds_says_so(tmp_path):
    cells = cells_of("cifar100/resnet10", cross_entropy=[50.0, 51.0, 52.0])
    cells["cifar100/resnet10/cross-entropy"][0]["ece"] = np.nan
    cells["cifar100/resnet10/cross-entropy"][1]["nll"] = np.inf
    text = results("mini", save(make_pool(cells, "mini"), tmp_path), tmp_path)
    [row] = [row for row in rows_of(text) if row[0] == "cross-entropy"]
    assert row[3:5] == [mean_std_text(12.88, 0.18, 2, n=2), mean_std_text(2.55, 0.071, 3, n=2)]
    assert "- (n=…): over fewer seeds than the row" in text


def test_verdicts_are_counted_listed_and_folded_if_there_are_many(mini, tmp_path):
    text = verdicts("mini", mini, mini)
    assert re.match(
        r"The claims, .* of mini: holds \d+, contradicted \d+, equivalent \d+, undecided \d+, not run \d+\.", text
    )
    row = next(row for row in rows_of(text) if row[1:2] == ["cub200"])
    assert row[2] == "resnet10"
    assert re.fullmatch(r"\N{MINUS SIGN}\d\.\d\d \[.*\]", row[3])
    names = ("cifar100", "cub200", "dogs", "tinyimagenet", "mit67", "digits")
    metrics = {seed: {"top1_error": 50.0 + seed, "ece": 5.0, "top5_error": 9.0, "recall_at_1": 40.0} for seed in (0, 1)}
    pool = make_pool(
        {f"{name}/resnet10/{method}": metrics for name in names for method in ("cs-kd", "cross-entropy")}, "mini"
    )
    folded = verdicts("mini", save(pool, tmp_path), tmp_path)
    assert re.search(
        r"<details><summary>The \d+ verdicts that were judged</summary>\n\n\|.*\|\n\n</details>", folded, re.S
    )


def test_papers_recipe_that_was_not_run_shows_the_papers_numbers(tmp_path):
    text = results("paper", tmp_path, tmp_path)
    numbers = [mean_std_text(24.71, 0.24, 2), "not run", "not run", mean_std_text(15.45, 0.33, 2), "not run", "0"]
    assert ["cifar100", "cross-entropy", *numbers] in rows_of(text)
    assert len(rows_of(text)) == 12  # five datasets, both methods, and the header
    assert "**Not run** yet: `make reproduce-table1`" in text
    assert verdicts("paper", tmp_path, tmp_path).startswith("No run of the paper's recipe")


def test_papers_numbers_are_only_beside_comparable_cells(tmp_path):
    pool = make_pool(
        {"cifar100/resnet18/cs-kd": {0: 22.0}, "dogs/resnet18/cs-kd": {0: 31.0}, "cub200/resnet10/kd": {0: 9.0}}
    )
    dogs = pool.runs.dataset == "dogs"
    pool.runs.loc[dogs, "comparable"] = False
    pool.runs.loc[dogs, "comparable_reason"] = "the dataset is incomplete"
    text = results("paper", save(pool, tmp_path), tmp_path)
    of_cifar, of_dogs, of_kd = (
        next(row for row in rows_of(text) if number in row) for number in ("22.00", "31.00", "9.00")
    )
    error, ece = mean_std_text(21.99, 0.13, 2), mean_std_text(5.17, 0.4, 2)
    assert of_cifar == ["", "cs-kd", error, ABSENT, "22.00", ece, ABSENT, "1"]
    assert (of_dogs[2], of_dogs[5]) == (ABSENT, ABSENT)
    assert of_kd[:3] == ["cub200", "kd", mean_std_text(39.32, 0.65, 2)]
    assert "- Not comparable with the paper: dogs (the dataset is incomplete)." in text


def test_runs_with_earlier_settings_are_left_out(mini):
    path = runs_path(mini, "mini")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    old = rows[(rows.dataset == "cub200") & (rows.method == "cs-kd")].assign(
        run_key=["x", "y", "z"], cell_key="old", started="2025-01-01T00:00:00Z", last_top1_error="99"
    )
    before = results("mini", mini, mini)
    path.write_text(to_csv(pd.concat([old, rows])))
    after = results("mini", mini, mini)
    left_out = "- cub200/resnet10/cs-kd: 3 runs with other settings than the latest: left out.\n"
    assert left_out in after
    assert after.replace(left_out, "").split() == before.split()


@pytest.mark.parametrize(("column", "value"), [("last_ece", "much"), ("started", "long ago")])
def test_text_in_a_column_of_numbers_or_dates_is_an_error(mini, column, value):
    path = runs_path(mini, "mini")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[1, column] = value
    path.write_text(to_csv(rows))
    with pytest.raises(UserError, match=rf"runs-mini\.csv, column {column}: .*{value}"):
        results("mini", mini, mini)


def test_paper_order_has_the_main_methods_first_and_unknown_names_last():
    assert paper_order(["own", "kd", "cs-kd", "adacos", "cross-entropy"], "method") == [
        *("cross-entropy", "cs-kd", "adacos", "kd", "own")
    ]
    assert paper_order(["digits", "dogs", "a", "cifar100"], "dataset") == ["cifar100", "dogs", "a", "digits"]


def test_command_updates_a_document_and_check_only_reports(mini, tmp_path, capsys):
    path = tmp_path / "docs" / "page.md"
    path.parent.mkdir()
    path.write_text(MARKED.format("results mini", ""))
    before, arguments = path.read_bytes(), ["--documents", str(path), "--measured-dir", str(mini)]
    assert readme.main([*arguments, "--check"]) == 1
    assert capsys.readouterr().err == f"{path} differs from {mini} (results mini): run 'make readme'\n"
    assert path.read_bytes() == before
    assert readme.main(arguments) == 0
    assert readme.main([*arguments, "--check"]) == 0
    after = path.read_text()
    assert after.startswith("# Title\n\n<!-- begin generated: results mini -->\n\n**cifar100, resnet10**\n\n|")
    assert after.endswith("\n\n<!-- end generated -->\n\nBelow.\n")
    assert "[../runs-mini.csv](../runs-mini.csv)" in after
    path.write_text(after.replace("45.50", "35.50"))
    assert readme.main([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Title\n", r"README\.md: each table must be between <!-- begin generated: results mini --> and"),
        ("a\n<!-- begin generated: results mini -->\n", r"README\.md: each table must be between"),
        ("<!-- begin generated: results mini -->\n" + MARKED.format("verdicts mini", ""), r"README\.md: each table"),
        ("a\nb\n<!-- end generated -->\n", r"README\.md: each table must be between"),
        (MARKED.format("resluts mini", ""), "unknown generated table 'resluts': did you mean results?"),
        (MARKED.format("results ../mini", ""), "marker 'results ../mini' names no pool or table"),
        (MARKED.format("results large", ""), r"runs-large\.csv does not exist: 'make measured' writes it"),
    ],
)
def test_invalid_document_is_a_one_line_error(mini, tmp_path, text, message):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        readme.main(["--documents", str(path), "--measured-dir", str(mini)])
    assert "\n" not in str(caught.value)
    assert path.read_text() == text
