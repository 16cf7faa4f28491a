"""Archives: sound ones are unpacked, and only files with a published checksum are archives."""

import io
import tarfile
import zipfile
from collections import namedtuple

import pytest

from cskd.data.archives import unpack_or_copy
from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError


def make_tar(path, contents: dict[str, str | None], mode: str = "w:gz"):
    """contents: text by file name; None for a folder."""
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or "")
            archive.addfile(info, io.BytesIO((content or "").encode()))
    return path


def make_zip(path, contents: dict[str, str]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_archives_of_one_dataset_are_unpacked_into_one_folder_with_progress(tmp_path):
    steps = []
    for path in (
        make_zip(tmp_path / "a.zip", {"set/x.txt": "x", "set/": ""}),
        make_tar(tmp_path / "b.tar", {".": None, "set": None, "set/y.txt": "y"}, "w"),
        make_tar(tmp_path / "c.tgz", {"set/z.txt": "z"}),
    ):
        unpack_or_copy(path, tmp_path / "into", lambda *step: steps.append(step))
    assert tree(tmp_path / "into") == ["set", "set/x.txt", "set/y.txt", "set/z.txt"]
    assert (tmp_path / "into" / "set" / "y.txt").read_text() == "y"
    assert {stage for stage, _, _ in steps} == {"unpack a.zip", "unpack b.tar", "unpack c.tgz"}
    assert all(done <= total for _, done, total in steps)


def test_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "total used free")(10, 10, 5))
    for path in (make_zip(tmp_path / "a.zip", {"x": "four", "y": "four"}), make_tar(tmp_path / "b.tar", {"x": "x"})):
        with pytest.raises(UserError, match="no space in"):
            unpack_or_copy(path, tmp_path / "into")
    assert tree(tmp_path / "into") == []


def test_every_archive_that_is_unpacked_has_a_checksum():
    """Therefore a hostile archive is never unpacked; a list without a checksum is copied."""
    archives = [archive for source in SOURCES.values() for archive in source.archives]
    assert all(archive.checksum or archive.filename.endswith(".txt") for archive in archives)
