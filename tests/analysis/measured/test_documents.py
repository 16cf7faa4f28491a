"""Generated tables of the documentation: they show the files' numbers, and documents are updated between markers."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from analysis.commands import readme
from analysis.measured.csv_files import RUNS, read_rows, runs_path
from analysis.measured.documents import table
from analysis.measured.make_commands import make_commands
from analysis.measured.results_tables import results
from analysis.tables.format import to_csv
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


def test_answer_has_the_deciding_experiment_above_rows_of_numbers_and_verdicts():
    deciding, mini = table("answer", MEASURED, ROOT).split("\n\n")
    assert [row[0][:2] for row in rows_of(deciding)[2:]] == ["H1", "H2", "H3"]
    tuned, *rows = rows_of(mini)[2:]
    assert tuned[0] == "cifar100, mini, both tuned, 60 epochs"
    places = ("cifar100 60", "tinyimagenet 60", "cub200 60", "dogs 60", "tinyimagenet 200", "cub200 200")
    assert [row[0] for row in rows] == ["{}, mini (one draw), {} epochs".format(*place.split()) for place in places]
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
        assert (chosen.pop("tuned", []) == ["1"]) == ("-tuned" in path.stem)
        assert set(runs.threads) == set(chosen.pop("omp_num_threads"))
        overrides = tuple(chosen.pop("set", []))
        assert [*overrides] == json.loads(runs.overrides[0])
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
    changed = runs.assign(threads="2", tuned="true", overrides='["width=8", "schedule.milestones=[1,2]"]')
    assert f'{crossed} TUNED=1 SET="width=8 schedule.milestones=[1,2]" OMP_NUM_THREADS=2' in make_commands(changed)
    assert make_commands(runs.assign(overrides='["data.reader=$(true)"]')) == []  # not safe in a shell
    assert make_commands(runs.assign(grids="")) == []
    assert make_commands(runs.assign(grids="demo", profile="demo")) == ["make demo"]
    assert make_commands(runs.assign(grids="ingredients"))[0].startswith("make ingredients PROFILE=mini DATASETS=")


def rows_of(text):
    """Return the cells of every line of the tables in a text."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]


def test_results_show_mean_and_std_over_the_seeds_with_a_value(exported):
    folder, _ = exported
    text = results("mini", folder, folder)
    rows = {row[0]: row for row in rows_of(text.split("**dogs")[0])}
    last, best = mean_std_text(51, 1, 2), mean_std_text(50.875, 1, 2)
    assert rows["cross-entropy"][1:4] == [last, best, mean_std_text(18, 1, 2)]
    assert rows["cross-entropy"][7] == "3"
    assert rows["cs-kd"][1] == mean_std_text(49, 2**0.5, 2, n=2)  # one seed without an error
    assert rows["cs-kd"][3] == mean_std_text(5.5, 0.5**0.5, 2, n=2)  # and one without an ECE
    assert "- (n=…): over fewer seeds than the row" in text


def test_papers_numbers_are_only_beside_comparable_cells(exported):
    folder, _ = exported
    text = results("paper", folder, folder)
    assert "- Not comparable with the paper: mit67 (the dataset is incomplete)." in text
    error, ece = mean_std_text(21.99, 0.13, 2), mean_std_text(5.17, 0.4, 2)
    last, best = mean_std_text(22.25, 0.25, 2), mean_std_text(22.125, 0.25, 2)
    of_cifar, of_mit = (next(row for row in rows_of(text) if number in row) for number in (last, "40.00"))
    assert of_cifar == ["", "cs-kd", error, best, last, ece, mean_std_text(5.375, 0.5, 2), "3"]
    assert of_mit[:4] == ["mit67", "cross-entropy", ABSENT, "39.88"]
    assert of_mit[5] == ABSENT


def test_runs_with_earlier_settings_are_left_out(exported, tmp_path):
    rows = pd.read_csv(runs_path(exported[0], "mini"), dtype=str, keep_default_na=False)
    old = rows[:3].assign(run_key=["x", "y", "z"], cell_key="old", started="2025-01-01T00:00:00Z", last_top1_error="99")
    runs_path(tmp_path, "mini").write_text(to_csv(pd.concat([old, rows])))
    after = results("mini", tmp_path, tmp_path)
    left_out = "- cifar100/resnet10/cross-entropy: 3 runs with other settings than the latest: left out.\n"
    assert left_out in after
    assert after.replace(left_out, "").split() == results("mini", exported[0], exported[0]).split()


def test_text_in_a_column_of_dates_is_an_error(exported, tmp_path):
    rows = pd.read_csv(runs_path(exported[0], "mini"), dtype=str, keep_default_na=False)
    rows.loc[1, "started"] = "long ago"
    runs_path(tmp_path, "mini").write_text(to_csv(rows))
    with pytest.raises(UserError, match=r"runs-mini\.csv, column started: .*long ago"):
        results("mini", tmp_path, tmp_path)


def test_command_updates_a_document_and_check_only_reports(exported, tmp_path, capsys):
    folder, path = exported[0], tmp_path / "page.md"
    path.write_text(MARKED.format("results mini", ""))
    before, arguments = path.read_bytes(), ["--documents", str(path), "--measured-dir", str(folder)]
    assert readme.main([*arguments, "--check"]) == 1
    assert capsys.readouterr().err == f"{path} differs from {folder} (results mini): run 'make readme'\n"
    assert path.read_bytes() == before
    assert readme.main(arguments) == 0
    after = path.read_text()
    assert after.startswith("# Title\n\n<!-- begin generated: results mini -->\n\n**cifar100, resnet10**\n\n|")
    assert after.endswith("\n\n<!-- end generated -->\n\nBelow.\n")
    link = f"../{folder.name}/runs-mini.csv"
    assert f"[{link}]({link})" in after.replace("\\_", "_")
    assert readme.main([*arguments, "--check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Title\n", r"each table must be between <!-- begin generated: results mini --> and"),
        ("a\n<!-- begin generated: results mini -->\n", "each table must be between"),
        ("<!-- begin generated: results mini -->\n" + MARKED.format("verdicts mini", ""), "each table must be between"),
        (MARKED.format("resluts mini", ""), "unknown generated table 'resluts': did you mean results?"),
        (MARKED.format("results ../mini", ""), "marker 'results ../mini' names no pool or table"),
        (MARKED.format("results large", ""), r"runs-large\.csv does not exist: 'make measured' writes it"),
    ],
)
def test_invalid_document_is_a_one_line_error(tmp_path, text, message):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        readme.main(["--documents", str(path), "--measured-dir", str(tmp_path)])
    assert path.read_text() == text
