"""A copy of the sources, so that a real command finds a recipe of the user's own in its place."""

import shutil
import subprocess
import sys
from pathlib import Path

from place import ROOT, Place


class OwnTree(Place):
    """A place whose commands run from a copy of the sources."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.sources = folder / "sources"
        for name in ("cskd", "experiments", "analysis"):
            shutil.copytree(ROOT / name, self.sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.recipes = self.sources / "experiments" / "recipes"

    def start(self, command: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", *command.split(), *arguments],
            cwd=self.sources,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
