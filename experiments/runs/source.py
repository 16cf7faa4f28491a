"""The version of the code: its commit, whether the code differs from it, and a digest of the code."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from cskd.utils.integrity import source_digest

ROOT = Path(__file__).resolve().parents[2]
# Code that can change the numbers of a run. Recipes and grids are not: their settings are in the run's spec.
SOURCES = ("cskd/**/*.py", "experiments/**/*.py", "requirements.lock")
UNKNOWN = "unknown"


def describe_source(root: Path = ROOT) -> dict[str, Any]:
    """Return the version of the code in ``root``, as recorded with each start of a run.

    Returns:
        git_commit: the commit, "unknown" unless ``root`` is the top of a repository whose commit has these sources.
        git_dirty: whether the sources differ from the commit; None if unknown.
        source_digest: a hash of the sources, which identifies code without a commit, or with changes.
    """
    commit = commit_of(root, tracked="cskd/__init__.py")
    pathspecs = [f":(glob){pattern}" for pattern in SOURCES]
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *pathspecs)
    return {
        "git_commit": commit,
        "git_dirty": None if UNKNOWN in (commit, changes) else bool(changes),
        "source_digest": source_digest(root, SOURCES),
    }


@cache
def source_at_start() -> dict[str, Any]:
    """Return ``describe_source`` of the first call in this process, or in the process that it was forked from."""
    return describe_source()


def commit_of(root: Path, tracked: str = "") -> str:
    """Return the commit of the repository whose top is ``root``; "unknown" if none, or if it lacks ``tracked``."""
    return _git(root, "rev-parse", "HEAD", f"HEAD:{tracked}").partition("\n")[0]


def _git(root: Path, *arguments: str) -> str:
    """Return the output of git for the repository in ``root`` itself; "unknown" if there is none, or git fails."""
    # Without --git-dir, git would also answer for a repository around ``root``, or for the one in GIT_DIR.
    command = ("git", f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*command, "-c", "core.fileMode=false", *arguments],
            cwd=root, env=environment, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError:  # git is not installed
        return UNKNOWN
    return done.stdout.strip() if done.returncode == 0 else UNKNOWN
