"""The version of the code of runs: unknown is not clean."""

import pytest

from analysis.load.source import commit_texts, source_problem

COMMIT, OTHER = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("runs", "texts"),
    [
        ([(COMMIT, "false"), (COMMIT, "False")], ["111111111111"]),
        ([(COMMIT, "false"), (COMMIT, "unknown"), (COMMIT, "true")], ["111111111111 (dirty)"]),
        ([(f"{COMMIT} {OTHER}", ""), (OTHER, "true")], ["111111111111 (changes unknown)", "222222222222 (dirty)"]),
        ([("unknown", "unknown"), ("", "")], ["unknown"]),
    ],
)
def test_commits_are_marked_unless_all_their_runs_are_clean(runs, texts):
    assert commit_texts(*zip(*runs, strict=True)) == texts


def test_only_a_clean_commit_is_no_problem():
    assert source_problem(COMMIT, "false") == ""
    for run in ((COMMIT, "true"), (COMMIT, "unknown"), (COMMIT, ""), (f"{COMMIT} unknown", "false"), ("", "false")):
        assert source_problem(*run)
