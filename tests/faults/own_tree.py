"""Commands that run from a copy of the sources, to which a test can add recipes."""

import shutil
from pathlib import Path

from place import ROOT, Place


class OwnTree(Place):
    """A place whose commands run from a copy of the sources."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.sources = folder / "sources"  # the working directory of the commands
        for name in ("cskd", "experiments", "analysis"):
            shutil.copytree(ROOT / name, self.sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.recipes = self.sources / "experiments" / "recipes"
