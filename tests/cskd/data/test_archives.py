"""Sound archives are unpacked. Hostile and damaged ones are in tests/faults/test_archives.py."""

import io
import tarfile
import zipfile
from collections import namedtuple

import pytest

from cskd.data.archive import unpack
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


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_is_unpacked_with_progress(tmp_path, mode):
    path = make_tar(tmp_path / "a.tar", {".": None, "set": None, "set/x.txt": "x", "y": "y"}, mode)
    steps = []
    unpack(path, tmp_path / "into", lambda *step: steps.append(step))
    assert tree(tmp_path / "into") == ["set", "set/x.txt", "y"]
    assert (tmp_path / "into" / "set" / "x.txt").read_text() == "x"
    assert {stage for stage, _, _ in steps} == {"unpack a.tar"}
    assert all(done <= total for _, done, total in steps)


def test_archives_of_one_dataset_share_a_folder_but_no_file(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", {"set/x.txt": "x", "set/": ""}), tmp_path / "into")
    unpack(make_tar(tmp_path / "b.tar", {"list.txt": "y"}), tmp_path / "into")
    before = tree(tmp_path)
    assert tree(tmp_path / "into") == ["list.txt", "set", "set/x.txt"]
    with pytest.raises(UserError, match=r"a second list\.txt"):
        unpack(tmp_path / "b.tar", tmp_path / "into")
    assert tree(tmp_path) == before


def test_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "total used free")(10, 10, 5))
    for path in (
        make_zip(tmp_path / "a.zip", {"x": "four", "y": "four"}),
        make_tar(tmp_path / "b.tar.gz", {"x": "more than five"}),
    ):
        with pytest.raises(UserError, match="no space in"):
            unpack(path, tmp_path / "into")
    assert tree(tmp_path) == ["a.zip", "b.tar.gz"]


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.tar"):
        unpack(tmp_path / "absent.tar", tmp_path / "into")
