"""The README's generated tables: they are what the checked-in files give, and say only what these say."""

import itertools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_evaluations as made_up_evaluations
from golden import compare
from made_up_pool import made_up_pool

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import judge
from analysis.commands import readme
from analysis.commands.common import make_commands
from analysis.commands.measured import measured_frame
from analysis.measured.csv_files import EVALUATED, runs_path, verdicts_path
from analysis.measured.results_tables import in_order, results, verdicts
from analysis.tables.format import to_csv
from analysis.tables.model import ABSENT
from analysis.tables.verdicts import verdict_frame
from cskd.utils.errors import UserError
from experiments.runs.plan import experiment_name, load_grid, settings_of

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "readme"
CHECKED_IN = sorted((ROOT / "results" / "measured").glob("runs-*.csv"))
MARKED = "# Title\n\n<!-- begin generated: {} -->\n{}<!-- end generated -->\n\nBelow.\n"


def test_the_readme_is_what_the_checked_in_files_give(monkeypatch, capsys):
    """Where this fails: make readme."""
    monkeypatch.chdir(ROOT)
    status = readme.main(["--check"])
    assert status == 0, capsys.readouterr().err


def test_the_readmes_first_result_table_has_real_numbers():
    text = (ROOT / "README.md").read_text()
    first = re.search(r"<!-- begin generated: (.+?) -->(.*?)<!-- end generated -->", text, re.DOTALL)
    assert first[1].startswith("results ")
    assert re.search(r"\| cross-entropy +\| +\d+\.\d\d ± \d+\.\d\d \|", first[2])


@pytest.mark.parametrize("path", CHECKED_IN, ids=lambda path: path.stem)
def test_the_commands_train_exactly_the_checked_in_runs(path):
    runs = pd.read_csv(path, keep_default_na=False)
    planned = []
    for command in make_commands(runs, path.stem.removeprefix("runs-")):
        _, target, *variables = shlex.split(command)
        chosen = {name.lower(): text.split() for name, text in (each.split("=", 1) for each in variables)}
        [profile] = chosen.pop("profile", ["paper"])
        assert (chosen.pop("tuned", []) == ["1"]) == path.stem.endswith("-tuned")
        changed = tuple(chosen.pop("set", []))
        assert experiment_name("", profile, changed) == f"-{path.stem.removeprefix('runs-').removesuffix('-tuned')}"
        assert set(runs.device) == {f"cpu, {chosen.pop('omp_num_threads')[0]} thread"}
        grid = load_grid(target.removeprefix("reproduce-"), **chosen)
        _, settings = settings_of(grid, profile, changed)
        for dataset, network in itertools.product(grid.datasets, grid.architectures):
            trained = settings[dataset].trained(network)
            planned += itertools.product([trained], [dataset], grid.methods, grid.seeds)
    assert sorted(planned) == sorted(zip(runs.architecture, runs.dataset, runs.method, runs.seed, strict=True))


def save(pool, folder, found=None):
    """The two files of a pool, as ``make measured`` writes them."""
    folder.mkdir(exist_ok=True)
    runs_path(folder, pool.name).write_text(to_csv(measured_frame(pool, {})))
    frame = verdict_frame(judge(pool, load_claims(), found or {}))
    verdicts_path(folder, pool.name).write_text(to_csv(frame))
    return folder


def mini_pool(cells):
    return made_up_pool(cells, profile="mini", experiment="table1-mini")


def cells_of(place, **errors):
    """``{"cifar100/resnet10/cs-kd": {seed: metrics}}``, each metric a multiple of the error."""
    parts = {"top1_error": 1.0, "ece": 0.25, "nll": 0.05, "recall_at_1": 0.9}
    return {
        f"{place}/{method.replace('_', '-')}": {
            seed: {name: factor * error for name, factor in parts.items()} for seed, error in enumerate(values)
        }
        for method, values in errors.items()
    }


@pytest.fixture(scope="module")
def mini_files(tmp_path_factory):
    cells = cells_of("cub200/resnet10", mixup=[60.0], cs_kd=[44.0, 45.0, 47.5], cross_entropy=[50.0, 52.0, 51.0])
    pool = mini_pool(cells | cells_of("cifar100/resnet10", cross_entropy=[50.0, 51.0], cs_kd=[49.0, 52.5]))
    return save(pool, tmp_path_factory.mktemp("measured"), made_up_evaluations(pool, 0.5))


@pytest.fixture
def mini(mini_files, tmp_path):
    """A folder with the files of a pool of two datasets, to be changed at will."""
    return Path(shutil.copytree(mini_files, tmp_path / "measured"))


@pytest.mark.parametrize("kind", ["results", "verdicts"])
def test_the_blocks_are_the_golden_ones(mini, tmp_path, kind):
    """Byte by byte. To make them anew: UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_readme.py"""
    compare(readme.table(f"{kind} mini", mini, tmp_path) + "\n", GOLDEN / f"{kind}-mini.md")


def rows_of(text):
    """The cells of every line of the tables of a text."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]


def test_means_and_std_are_those_of_the_seeds(mini, tmp_path):
    of_cub = results("mini", mini, tmp_path).split("**cub200, resnet10**")[1]
    row = next(row for row in rows_of(of_cub) if row[0] == "cs-kd")
    errors = np.array([44.0, 45.0, 47.5])
    assert (
        row[1] == f"{errors.sum() / 3:.2f} ± {np.sqrt(((errors - errors.mean()) ** 2).sum() / 2):.2f}" == "45.50 ± 1.80"
    )
    assert row[3] == "11.38 ± 0.45"
    assert (row[2], row[5], row[7]) == (ABSENT, ABSENT, "3")
    single = next(row for row in rows_of(of_cub) if row[0] == "mixup")
    assert (single[1], single[7]) == ("60.00", "1")


def test_a_mean_of_fewer_seeds_than_the_row_says_so(tmp_path):
    cells = cells_of("cifar100/resnet10", cross_entropy=[50.0, 51.0, 52.0])
    cells["cifar100/resnet10/cross-entropy"][0]["ece"] = np.nan
    cells["cifar100/resnet10/cross-entropy"][1]["nll"] = np.inf
    text = results("mini", save(mini_pool(cells), tmp_path), tmp_path)
    [row] = [row for row in rows_of(text) if row[0] == "cross-entropy"]
    assert row[3:5] == ["12.88 ± 0.18 (n=2)", "2.550 ± 0.071 (n=2)"]
    assert "- (n=…): of fewer seeds than the row's; the others have no such value." in text


def test_tables_have_few_columns(mini, tmp_path):
    for kind in ("results", "verdicts"):
        assert max(map(len, rows_of(readme.table(f"{kind} mini", mini, tmp_path)))) <= 8
    assert max(map(len, rows_of(results("paper", tmp_path, tmp_path)))) <= 8


def test_methods_stand_with_the_papers_two_first():
    assert in_order(["own", "kd", "cs-kd", "adacos", "cross-entropy"], "method") == [
        *("cross-entropy", "cs-kd", "adacos", "kd", "own")
    ]
    assert in_order(["digits", "dogs", "a", "cifar100"], "dataset") == ["cifar100", "dogs", "a", "digits"]


def test_names_with_bars_do_not_break_a_table(tmp_path):
    pool = mini_pool({"my|set/resnet10/a|b": {0: 50.0, 1: 51.0}, "my|set/resnet10/cross-entropy": {0: 52.0, 1: 53.0}})
    text = results("mini", save(pool, tmp_path), tmp_path)
    assert r"**my\|set, resnet10**" in text
    assert [row[0] for row in rows_of(text) if len(row) == 8][2:] == ["cross-entropy", r"a\|b ‡"]


def test_many_verdicts_are_folded(tmp_path):
    names = ("cifar100", "cub200", "dogs", "tinyimagenet", "mit67", "digits")
    pool = mini_pool(
        {f"{name}/resnet10/{method}": {0: 50.0, 1: 51.0} for name in names for method in ("cs-kd", "cross-entropy")}
    )
    for run in range(len(pool.runs)):
        pool.runs.loc[run, ["test/ece", "test/top5_error", "test/recall_at_1"]] = [5.0 + run, 10.0 + run, 40.0 + run]
    text = verdicts("mini", save(pool, tmp_path), tmp_path)
    assert re.search(
        r"<details><summary>The \d+ that could be judged</summary>\n\n\|.*\|\n\n</details>", text, re.DOTALL
    )


def test_a_pool_of_nothing_judged_says_so_without_a_table(tmp_path):
    text = verdicts("mini", save(mini_pool({"cifar100/resnet10/cs-kd": {0: 50.0}}), tmp_path), tmp_path)
    assert re.match(r"The paper's claims, .* of mini: holds 0, contradicted 0, undecided 0, not run \d+\.\n\n", text)
    assert "|" not in text


def test_the_papers_pool_that_was_not_run_shows_the_papers_numbers(tmp_path):
    text = results("paper", tmp_path, tmp_path)
    assert [
        "cifar100",
        "cross-entropy",
        "24.71 ± 0.24",
        "not run",
        "not run",
        "15.45 ± 0.33",
        "not run",
        "0",
    ] in rows_of(text)
    assert len(rows_of(text)) == 12  # 5 datasets, both methods, below a header
    assert "**Not run** yet: `make reproduce-table1`" in text
    assert verdicts("paper", tmp_path, tmp_path).startswith("No run of the paper's recipe")


def test_the_papers_numbers_stand_only_beside_what_may_be_compared(tmp_path):
    pool = made_up_pool(
        {"cifar100/resnet18/cs-kd": {0: 22.0}, "dogs/resnet18/cs-kd": {0: 31.0}, "cub200/resnet10/kd": {0: 9.0}}
    )
    pool.runs.loc[pool.runs.dataset == "dogs", "comparable_with_paper"] = "no: the dataset is incomplete"
    text = results("paper", save(pool, tmp_path), tmp_path)
    of_cifar, of_dogs, of_kd = (
        next(row for row in rows_of(text) if number in row) for number in ("22.00", "31.00", "9.00")
    )
    assert of_cifar == ["", "cs-kd", "21.99 ± 0.13", ABSENT, "22.00", "5.17 ± 0.40", ABSENT, "1"]
    assert (of_dogs[2], of_dogs[5]) == (ABSENT, ABSENT)
    assert of_kd[:3] == ["cub200", "kd", "39.32 ± 0.65"]
    assert "- Not comparable with the paper: dogs (the dataset is incomplete)." in text


def test_runs_of_earlier_settings_are_left_out_and_counted(mini, tmp_path):
    path = runs_path(mini, "mini")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    old = rows[(rows.dataset == "cub200") & (rows.method == "cs-kd")].assign(
        run_key=["x", "y", "z"], cell_key="old", started="2025-01-01T00:00:00Z", last_top1_error="99"
    )
    before = results("mini", mini, tmp_path)
    path.write_text(to_csv(pd.concat([old, rows])))
    after = results("mini", mini, tmp_path)
    left_out = "- cub200/resnet10/cs-kd: 3 runs with other settings than the latest: left out.\n"
    assert left_out in after
    assert after.replace(left_out, "").split() == before.split()


def test_a_file_of_an_earlier_version_shows_what_it_has_and_names_what_it_lacks(mini, tmp_path):
    path = runs_path(mini, "mini")
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=list(EVALUATED)).to_csv(path, index=False)
    text = results("mini", mini, tmp_path)
    assert f"- The file is of an earlier version, without {', '.join(EVALUATED)}.".replace("_", r"\_") in text
    assert "45.50 ± 1.80" in text


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("last_ece", "much", "column last_ece: .*much"), ("started", "long ago", "column started: .*long ago")],
)
def test_a_cell_that_is_no_number_or_date_is_named(mini, tmp_path, column, value, said):
    path = runs_path(mini, "mini")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[1, column] = value
    path.write_text(to_csv(rows))
    with pytest.raises(UserError, match=rf"runs-mini\.csv, {said}"):
        results("mini", mini, tmp_path)


def test_the_commands_cross_what_was_crossed():
    names = ("architecture", "dataset", "method", "seed", "profile", "grids")
    rows = [("resnet10", d, m, s, "mini", "table3 table1") for d in ("a", "b") for m in ("cs-kd", "kd") for s in (0, 1)]
    rows += [("resnet10", "a", "mixup", 2, "mini", "table3"), ("resnet10", "a", "kd", 7, "mini", "train")]
    runs = pd.DataFrame(rows, columns=names).assign(device="cpu")
    crossed = 'make reproduce-table1 PROFILE=mini DATASETS="a b" ARCHITECTURES=resnet10 METHODS="cs-kd kd" SEEDS="0 1"'
    assert make_commands(runs, "mini") == [
        "make train DATASET=a METHOD=kd ARCHITECTURE=resnet10 SEED=7 PROFILE=mini",
        crossed,
        "make reproduce-table3 PROFILE=mini DATASETS=a ARCHITECTURES=resnet10 METHODS=mixup SEEDS=2",
    ]
    assert f"{crossed} TUNED=1" in make_commands(runs, "mini-tuned")
    threads = runs.assign(device=["cpu, 1 thread" if seed == 0 else "cpu, 2 threads" for seed in runs.seed])
    by_threads = [crossed.replace('"0 1"', f"{seed} OMP_NUM_THREADS={seed + 1}") for seed in (0, 1)]
    assert set(by_threads) < set(make_commands(threads, "mini"))
    changed = runs.assign(overrides="width=8, schedule.milestones=[1,2]")
    assert f'{crossed} SET="width=8 schedule.milestones=[1,2]"' in make_commands(changed, "mini-custom-1a2b3c")
    assert f'{crossed} TUNED=1 SET="width=8 schedule.milestones=[1,2]"' in make_commands(
        changed, "mini-tuned-custom-1a2b3c"
    )
    named = make_commands(runs.assign(overrides="methods.cs-kd.temperature=1"), "mini-custom-1a2b3c")
    assert f'{crossed} SET="methods.cs-kd.temperature=1"' in named
    for unknown in ("", "schedule.milestones=[1, 2]", "data.reader=$(true)", ["width=8"] * 9 + ["width=9"]):
        assert make_commands(runs.assign(overrides=unknown), "mini-custom-1a2b3c") == []
    assert make_commands(runs.assign(grids=""), "mini") == []
    assert make_commands(runs.assign(grids="demo", profile="demo"), "demo") == ["make demo"]


def document(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    return path


def run(path, measured, *arguments):
    return readme.main(["--documents", str(path), "--measured-dir", str(measured), *arguments])


def test_the_check_writes_nothing_and_tells_by_its_exit_status(mini, tmp_path, capsys):
    path = document(tmp_path, MARKED.format("results mini", ""))
    before = path.read_bytes()
    assert run(path, mini, "--check") == 1
    message = capsys.readouterr().err
    assert message == f"{path} is not what {mini} gives (results mini): run 'make readme'\n"
    assert path.read_bytes() == before
    assert run(path, mini) == 0
    assert run(path, mini, "--check") == 0
    after = path.read_text()
    assert after.startswith("# Title\n\n<!-- begin generated: results mini -->\n\n**cifar100, resnet10**\n\n|")
    assert after.endswith("\n\n<!-- end generated -->\n\nBelow.\n")
    path.write_text(after.replace("45.50", "35.50"))
    assert run(path, mini, "--check") == 1
    assert run(path, mini) == 0
    assert path.read_text() == after


def test_links_lead_from_the_document_to_the_files(mini, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    path = document(folder, MARKED.format("results mini", ""))
    run(path, mini)
    assert "[../measured/runs-mini.csv](../measured/runs-mini.csv)" in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Title\n", r"README\.md has no marker: put <!-- begin generated"),
        ("a\n<!-- begin generated: results mini -->\n", r"README\.md, line 2: 'results mini' is not closed: put"),
        (
            "<!-- begin generated: results mini -->\n" + MARKED.format("verdicts mini", ""),
            r"README\.md, line 1: 'results mini' is not closed",
        ),
        ("a\nb\n<!-- end generated -->\n", r"README\.md, line 3: <!-- end generated --> closes nothing"),
        (MARKED.format("resluts mini", ""), "unknown generated table 'resluts': choose from bench, results, verdicts"),
        (MARKED.format("results", ""), "marker 'results' does not say of what"),
        (MARKED.format("results ../mini", ""), "marker 'results ../mini' does not say of what"),
        (MARKED.format("results large", ""), r"runs-large\.csv does not exist: 'make measured' writes it"),
        (MARKED.format("verdicts large", ""), r"verdicts-large\.csv does not exist: 'make measured' writes it"),
    ],
)
def test_what_is_wrong_with_a_document_is_one_line_that_names_it(mini, tmp_path, text, said):
    path = document(tmp_path, text)
    with pytest.raises(UserError, match=said) as caught:
        run(path, mini)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_a_document_that_is_not_there_is_named(mini, tmp_path):
    with pytest.raises(UserError, match=r"none\.md cannot be read .*--documents"):
        run(tmp_path / "none.md", mini)
