"""The recorded version of the code of runs. What is not recorded as clean is not taken for clean."""

from collections.abc import Iterable

UNKNOWN = "unknown"  # a commit
DIRTY, UNCHECKED = "dirty", "changes unknown"


def change_mark(git_dirty: str) -> str:
    """Return "" if the code was that of its commit, else DIRTY or UNCHECKED."""
    return {"false": "", "true": DIRTY}.get(git_dirty.lower(), UNCHECKED)


def commit_texts(commits: Iterable[str], git_dirty: Iterable[str]) -> list[str]:
    """Return each commit once, shortened, in the order of the runs, with a mark unless all its runs are clean.

    commits: of each run; a resumed run may have several, separated by spaces.
    """
    marks: dict[str, set[str]] = {}
    for run_commits, dirty in zip(commits, git_dirty, strict=True):
        for commit in run_commits.split() or [UNKNOWN]:
            marks.setdefault(commit, set()).add(change_mark(dirty))
    texts = []
    for commit, found in marks.items():
        mark = DIRTY if DIRTY in found else UNCHECKED if UNCHECKED in found else ""
        texts.append(f"{commit[:12]} ({mark})" if mark and commit != UNKNOWN else commit[:12])
    return texts


def source_problem(git_commit: str, git_dirty: str) -> str:
    """Return why it is not certain which code trained a run, "" if it is."""
    if UNKNOWN in (git_commit.split() or [UNKNOWN]):
        return "trained from an unknown commit"
    problems = {DIRTY: "trained with uncommitted changes", UNCHECKED: "trained with unknown changes of its commit"}
    return problems.get(change_mark(git_dirty), "")
