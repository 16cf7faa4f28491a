"""A small disk that can be filled and can grow."""

import errno
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A tmpfs mounted at a folder: ``with Disk(folder) as disk``. Skips the test if it cannot be mounted."""

    def __init__(self, folder: Path, kilobytes: int = 65536):
        self.folder, self.kilobytes = folder, kilobytes

    def __enter__(self) -> "Disk":
        self.folder.mkdir(parents=True)
        try:
            self._mount("-t", "tmpfs", "-o", f"size={self.kilobytes}k", "none")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount a small disk")
        return self

    def __exit__(self, *exception: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Fill the disk up to the given free kilobytes."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - 1024 * leave))

    def grow(self) -> None:
        self.kilobytes *= 2
        self._mount("-o", f"remount,size={self.kilobytes}k")

    def files(self) -> dict[str, bytes]:
        """Return the content of all files but the filler and lock files, by name."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in ("filler", ".lock")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.folder], check=True, capture_output=True)
