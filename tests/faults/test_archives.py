"""Archives that are not the official ones are refused: nothing is unpacked."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from cskd.data.prepare import LOCK
from cskd.data.sources.registry import SOURCES

FAULT = "archives: damaged, hostile"
MIB = 1 << 20


def tar(path: Path, name: str = "set/file.txt", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"text"))


def zipped(path: Path, name: str = "set/file.txt") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "text")


def bomb(path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 100 * MIB
    path.write_bytes(gzip.compress(info.tobuf()) + gzip.compress(bytes(MIB)) * 101)


CASES = {
    "sound tar": tar,
    "sound zip": zipped,
    "outside, tar": lambda path: tar(path, "../evil"),
    "outside, zip": lambda path: zipped(path, "../evil"),
    "absolute": lambda path: tar(path, "/evil"),
    "link": lambda path: tar(path, "link", tarfile.SYMTYPE, "/etc/passwd"),
    "device": lambda path: tar(path, "device", tarfile.CHRTYPE),
    "bomb": bomb,
    "empty": lambda path: path.write_bytes(b""),
    "page": lambda path: path.write_text("<html>404</html>"),
    "truncated": lambda path: (tar(path), path.write_bytes(path.read_bytes()[:-20])),
}


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200", "dogs"])
def test_archive_with_another_checksum_is_refused(call, tmp_path, tally, name):
    archive = SOURCES[name].archives[-1]
    path = tmp_path / "data" / "downloads" / archive.filename
    path.parent.mkdir(parents=True)
    for case, make in CASES.items() if tally.every else [("sound tar", tar)]:
        make(path)
        checksum = hashlib.new(archive.algorithm, path.read_bytes()).hexdigest()
        with tally:
            status, _, errors = call("experiments data", name)
            assert (status, errors.count("\n")) == (2, 1), case
            assert f"{checksum}, not " in errors, case
            assert {entry.name for entry in (tmp_path / "data").iterdir()} == {LOCK, "downloads"}, case
