"""Tables and figures with Dunnett's intervals: of all methods of a pool, and of the ingredient study."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis.load.pools import pool_name
from analysis.measured.csv_files import RUN_COLUMNS, runs_path, write_rows
from analysis.measured.differences import methods
from analysis.measured.ingredients import (
    ARMS,
    FURTHER_ARMS,
    LONGER,
    LONGER_SETTINGS,
    further_figure,
    further_ingredients,
    ingredients,
    ingredients_figure,
)
from analysis.stats.multiplicity import many_to_one
from analysis.tables.methods import DIFFERENT
from cskd.utils.errors import UserError
from cskd.utils.numbers import ABSENT, mean_std_text, number_text

POOL = "mini-custom-1a2b3c"
FACTS = {
    "profile": "mini",
    "overrides": '["subset.draw=seed"]',
    "tuned": "false",
    "threads": "1",
    "grids": "ingredients",
}


@pytest.fixture
def study(tmp_path):
    """Write measured runs with these numbers of seeds by method; return the folder and each method's errors."""

    def write(**seeds):
        errors = {name: 50 - row + np.random.default_rng(row).normal(size=16) for row, name in enumerate(ARMS)}
        rows = [
            FACTS
            | {"run_key": f"{method}:{seed}", "cell_key": method, "dataset": "cifar100", "architecture": "resnet10"}
            | {"method": method, "seed": seed, "started": "2026-01-01", "ended": "2026-01-02"}
            | {"last_top1_error": errors[method][seed], "scaled_nll": errors[method][seed] / 30}
            | {"debiased_ece": errors[method][seed] / 5, "unused_top1_error": 60 + seed}
            for method in ARMS
            for seed in range(seeds.get(method.replace("-", "_"), seeds["others"]))
        ]
        write_rows(runs_path(tmp_path, POOL), pd.DataFrame(rows, columns=list(RUN_COLUMNS)))
        return tmp_path, errors

    return write


def rows_of(text):
    """Return the cells of each row by method, for each table of the text."""
    tables = [re.findall(r"^\| *([\w, -]+?) +\|(.*)\|$", part, re.MULTILINE) for part in text.split("\n\n**")[1:]]
    return [{name: [cell.strip() for cell in cells.split("|")] for name, cells in table[1:]} for table in tables]


def test_tables_show_dunnetts_intervals_of_the_published_seeds(study):
    folder, errors = study(others=5)
    first = {method: values[:4] for method, values in errors.items()}
    expected = many_to_one(first["cs-kd"], {name: first[name] for name in ARMS if name != "cs-kd"})["class-mean"]
    text = ingredients(POOL, folder, folder)
    error, nll, ece, description = rows_of(text)
    n, mean, _, difference = error["class-mean"]
    assert (n, mean) == ("4", mean_std_text(first["class-mean"].mean(), first["class-mean"].std(ddof=1), 2))
    effect, low, high = (number_text(value, 2, sign=True) for value in (expected.effect, *expected.interval))
    assert difference.removesuffix(f" {DIFFERENT}") == f"{effect} [{low}, {high}]"
    assert len(error) == len(nll) == len(ece) == len(ARMS)
    assert description["cs-kd"][2] == mean_std_text(61.5, np.std(range(4), ddof=1), 2)
    assert "Not finished" not in text
    assert "seeds 0 to 15" not in text


def test_larger_number_of_seeds_is_published_beside_the_first_once_every_method_has_it(study):
    folder, _ = study(others=16)
    text = ingredients(POOL, folder, folder)
    assert [table["cs-kd"][0] for table in rows_of(text)] == ["4"] * 3 + ["16"] * 4
    folder, _ = study(others=16, pair_halves=15)
    assert "seeds 0 to 15" not in ingredients(POOL, folder, folder)


def test_unfinished_methods_are_named_and_have_no_interval(study):
    folder, _ = study(others=4, pair_halves=1, same_image=0)
    text = ingredients(POOL, folder, folder)
    error = rows_of(text)[0]
    assert error["same-image"] == ["0", "not run", ABSENT, ABSENT]
    assert error["pair-halves"][2:] == [ABSENT, ABSENT]
    assert "**Not finished**: of 4 seeds, same-image 0, pair-halves 1." in text


def test_figure_draws_each_interval_beside_each_control(study):
    folder, errors = study(others=4)
    axes = ingredients_figure(POOL, folder).axes[0]
    first = {method: values[:4] for method, values in errors.items()}
    drawn = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    for control in ARMS[:2]:
        found = many_to_one(first[control], {name: first[name] for name in ARMS if name != control})
        assert all(any(ends == pytest.approx(one.interval) for ends in drawn) for one in found.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ARMS)


def test_longer_training_of_cross_entropy_is_a_variant_from_a_file_of_its_own(study):
    folder, errors = study(others=4)
    assert rows_of(further_ingredients(POOL, folder, folder))[0][LONGER] == ["0", "not run", ABSENT, ABSENT]
    path = runs_path(folder, POOL)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[rows.method == "same-image", "method"] = "any-partner"
    write_rows(path, rows)
    settings = '["schedule.epochs=80", "schedule.milestones=[40,60]"]'
    longer = rows[rows.method == "class-mean"].assign(method="cross-entropy", overrides=settings)
    write_rows(runs_path(folder, pool_name(POOL, overrides=LONGER_SETTINGS)), longer)
    text = further_ingredients(POOL, folder, folder)
    error = rows_of(text)[0]
    assert tuple(error) == FURTHER_ARMS
    values = {name: errors[name][:4] for name in ("cross-entropy", "cs-kd")}
    values |= {LONGER: errors["class-mean"][:4], "any-partner": errors["same-image"][:4]}
    found = many_to_one(values["cs-kd"], {name: values[name] for name in values if name != "cs-kd"})
    for name in (LONGER, "any-partner"):
        effect, low, high = (number_text(value, 2, sign=True) for value in (found[name].effect, *found[name].interval))
        assert error[name][3].removesuffix(f" {DIFFERENT}") == f"{effect} [{low}, {high}]"
    assert error["both-gradients"] == ["0", "not run", ABSENT, ABSENT]
    assert "- cross-entropy, longer: schedule.epochs=80, schedule.milestones=[40,60]." in text
    assert "Settings changed from the recipe: schedule" not in text
    assert 'METHODS=cross-entropy SEEDS="0 1 2 3" SET="schedule.epochs=80 schedule.milestones=[40,60]"' in text
    labels = [label.get_text() for label in further_figure(POOL, folder).axes[0].get_yticklabels()]
    assert labels == list(FURTHER_ARMS)


def test_all_methods_of_a_pool_and_their_tuned_values(study):
    folder, errors = study(others=5)
    path = runs_path(folder, POOL)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    tuned = rows[rows.method.isin(["cs-kd", "cross-entropy", "class-mean"])].copy()
    tuned.loc[tuned.method == "cs-kd", "tuned_values"] = "temperature 2 (lowest validation NLL of 12 trials)"
    write_rows(path, tuned)
    text = methods(POOL, folder, folder)
    error = rows_of(text)[0]
    assert list(error) == ["cross-entropy", "cs-kd", "class-mean"]
    five = {method: values[:5] for method, values in errors.items()}
    expected = many_to_one(five["cross-entropy"], {name: five[name] for name in ("cs-kd", "class-mean")})["class-mean"]
    effect, low, high = (number_text(value, 2, sign=True) for value in (expected.effect, *expected.interval))
    assert error["class-mean"][2].removesuffix(f" {DIFFERENT}") == f"{effect} [{low}, {high}]"
    assert "- Tuned: cs-kd: temperature 2 (lowest validation NLL of 12 trials)." in text

    write_rows(path, pd.concat([tuned, tuned.assign(dataset="dogs", run_key="d" + tuned.run_key)]))
    with pytest.raises(UserError, match="has runs on 2 datasets and networks"):
        methods(POOL, folder, folder)
