"""Unpack official archives. Every archive has the published checksum when it is unpacked, so its content is known."""

import shutil
import tarfile
import zipfile
from pathlib import Path

from cskd.data.folders import ProgressReport, no_report, require_free, storage_errors


def unpack_or_copy(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack a zip or tar file into ``folder``, or copy a text list into it. The folder may have other content.

    Raises UserError if the disk is full.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            shutil.copy(path, folder / path.name)
        elif path.suffix == ".zip":
            _unpack_zip(path, folder, report)
        else:
            _unpack_tar(path, folder, report)


def _unpack_zip(path: Path, folder: Path, report: ProgressReport) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        require_free(folder, sum(member.file_size for member in members))
        for member in members:
            archive.extract(member, folder)
            report(f"unpack {path.name}", archive.fp.tell(), path.stat().st_size)


def _unpack_tar(path: Path, folder: Path, report: ProgressReport) -> None:
    with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
        require_free(folder, path.stat().st_size)  # images are compressed already: about the size on the disk
        for member in archive:
            archive.extract(member, folder, filter="data")
            report(f"unpack {path.name}", file.tell(), path.stat().st_size)
