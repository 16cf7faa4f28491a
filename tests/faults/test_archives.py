"""Damaged and hostile archives are refused: nothing is written outside the folder, nothing is left inside."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest

from cskd.data.archive import unpack
from cskd.data.prepare import LOCK
from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError

FAULT = "archives: damaged, hostile, bombs"
MIB = 1 << 20


def tar(path: Path, *members: tuple, mode: str = "w:gz", form: int = tarfile.PAX_FORMAT) -> None:
    """members: (name, content or a tarfile type, link target or pax headers)."""
    with tarfile.open(path, mode, format=form) as archive:
        for name, content, *more in [("good.txt", "good"), *members]:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.size = len(content)
                info.pax_headers = more[0] if more else {}
                archive.addfile(info, io.BytesIO(content.encode()))
            else:
                info.type, info.linkname = content, more[0] if more else ""
                archive.addfile(info)


def zipped(path: Path, *members: tuple) -> None:
    """members: (name, content, Unix mode)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in [("good.txt", "good", 0), *members]:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


def of(make: Callable[..., None], *members: tuple, **options):
    return lambda path: make(path, *members, **options)


def zeros(compress: Callable[[bytes], bytes], count: int) -> bytes:
    """``count`` compressed MiB of zeros. All these formats allow concatenation."""
    return compress(bytes(MIB)) * count


def tar_bomb(compress: Callable[[bytes], bytes], name: str, size: int, kind: bytes = tarfile.REGTYPE):
    """A tar with one member that claims ``size`` zero bytes, which are there up to 600 MiB."""

    def make(path: Path) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        path.write_bytes(compress(info.tobuf()) + zeros(compress, size // MIB + 1 if size <= 600 * MIB else 1))

    return make


def many_empty_files(path: Path) -> None:
    """600,000 empty files in less than a megabyte."""
    names = b"".join(tarfile.TarInfo(f"{number:04d}").tobuf() for number in range(2_000))
    path.write_bytes(gzip.compress(names) * 300)


def sparse(path: Path) -> None:
    """A sparse file of a terabyte."""
    info = tarfile.TarInfo("holes")
    info.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "",
    }  # fmt: skip
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
        for _ in range(300):
            member.write(bytes(MIB))


def overlapping_zip(path: Path) -> None:
    """Many entries of the central directory share the same compressed bytes."""
    zipped(path, ("kernel", "\0" * (16 * MIB), 0))
    content = path.read_bytes()
    start, last, end = content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    entry = content[last:end]
    entries = b"".join(entry.replace(b"kernel", f"k{number:05d}".encode()) for number in range(2_000))
    directory = content[start:last] + entries
    tail = content[end:][:8] + struct.pack("<HHII", 2_001, 2_001, len(directory), start) + content[end:][20:]
    path.write_bytes(content[:start] + directory + tail)


def zip_with_wrong_size(path: Path) -> None:
    """The directory claims 10 bytes for a file of 4 MiB."""
    zipped(path, ("large", "\0" * (4 * MIB), 0))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(content)


def encrypted_zip(path: Path) -> None:
    zipped(path, ("secret", "text", 0))
    content = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rindex(magic) + flags] |= 1
    path.write_bytes(content)


def damaged_header(path: Path) -> None:
    """The second header has a wrong checksum, which tarfile takes for the end."""
    tar(path, ("second.txt", "x"), ("third.txt", "x"), mode="w")
    content = bytearray(path.read_bytes())
    content[2 * tarfile.BLOCKSIZE] ^= 0xFF
    path.write_bytes(content)


def cut_between_members(path: Path) -> None:
    tar(path, ("second.txt", "x"), mode="w")
    path.write_bytes(path.read_bytes()[: 2 * tarfile.BLOCKSIZE])


def cut(part: float, mode: str):
    """An archive truncated after this part; part 1: with a changed byte instead."""

    def make(path: Path) -> None:
        noise = os.urandom(10_000).hex()
        zipped(path, ("noise", noise, 0)) if mode == "zip" else tar(path, ("noise", noise), mode=mode)
        content = bytearray(path.read_bytes())
        if part == 1:
            content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[: int(part * len(content))])

    return make


OUTSIDE = ["../evil", "/evil", "a/../../evil", "a/../../../../../evil", "a\\..\\evil", "C:\\evil", "..", "a/.."]
ODD = ["new\nline.jpg", "carriage\rreturn", "escape\x1b[2J", "tab\t", "delete\x7f", "d/" * 1500, "x" * 300]
LINKS = [
    ("link", tarfile.SYMTYPE, "/etc/passwd"),
    ("link", tarfile.SYMTYPE, "good.txt"),
    ("link", tarfile.LNKTYPE, "../evil"),
    ("link", tarfile.LNKTYPE, "good.txt"),
    ("device", tarfile.CHRTYPE),
    ("device", tarfile.BLKTYPE),
    ("pipe", tarfile.FIFOTYPE),
]
NODES = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
# name: (suffix, maker). All are refused.
HOSTILE = {
    **{f"tar {name[:20]!r} {len(name)}": ("tar.gz", of(tar, (name, "x"))) for name in OUTSIDE + ODD},
    **{f"gnu tar {name!r}": ("tar", of(tar, (name, "x"), mode="w", form=tarfile.GNU_FORMAT)) for name in OUTSIDE[:3]},
    **{f"tar folder {name!r}": ("tar.gz", of(tar, (name, tarfile.DIRTYPE))) for name in OUTSIDE},
    **{f"tar pax {name!r}": ("tar.gz", of(tar, ("fine", "x", {"path": name}))) for name in OUTSIDE},
    **{f"tar {kind!r} {'/'.join(to)}": ("tar.gz", of(tar, (name, kind, *to))) for name, kind, *to in LINKS},
    "tar link, then a file through it": ("tar.gz", of(tar, ("d", tarfile.SYMTYPE, "/tmp"), ("d/evil", "x"))),
    "tar file twice": ("tar.gz", of(tar, ("a/b", "1"), ("./a//b", "2"))),
    "tar file, then folder": ("tar.gz", of(tar, ("a", "1"), ("a/b/c", "2"))),
    "tar folder, then file": ("tar.gz", of(tar, ("a/b", "1"), ("a", "2"))),
    **{f"zip {name[:20]!r} {len(name)}": ("zip", of(zipped, (name, "x", 0))) for name in OUTSIDE + ODD},
    **{f"zip mode {kind:o}": ("zip", of(zipped, ("node", "/etc/passwd", kind | 0o777))) for kind in NODES},
    "zip file, then folder": ("zip", of(zipped, ("a", "1", 0), ("a/b", "2", 0))),
    "zip encrypted": ("zip", encrypted_zip),
    "zip with a wrong size": ("zip", zip_with_wrong_size),
    "tar with a damaged header": ("tar", damaged_header),
    "tar cut between two members": ("tar", cut_between_members),
    "empty tar": ("tar", lambda path: path.write_bytes(b"")),
    "empty zip": ("zip", lambda path: path.write_bytes(b"")),
    "text": ("tar.gz", lambda path: path.write_text("<html>404</html>")),
    "zip named tar": ("tar.gz", of(zipped)),
    "tar named zip": ("zip", of(tar)),
    **{
        f"{mode} cut to {part}": ("zip" if mode == "zip" else "tar", cut(part, mode))
        for mode in ("w", "w:gz", "w:bz2", "w:xz", "zip")
        for part in ((0.1, 0.5) if mode == "w" else (0.1, 0.7, 0.999, 1))  # a plain tar has no checksum of its contents
    },
    "petabyte claimed": ("tar.gz", tar_bomb(gzip.compress, "zeros", 1 << 50)),
    "petabyte claimed, not compressed": ("tar", tar_bomb(bytes, "zeros", 1 << 50)),
    "terabyte of holes": ("tar.gz", sparse),
}
BOMBS = {
    "zip bomb": ("zip", zip_bomb),
    "zip of overlapping files": ("zip", overlapping_zip),
    "gz bomb": ("tar.gz", tar_bomb(gzip.compress, "zeros", 600 * MIB)),
    "bz2 bomb": ("tar.gz", tar_bomb(bz2.compress, "zeros", 600 * MIB)),
    "xz bomb": ("tar.gz", tar_bomb(lzma.compress, "zeros", 600 * MIB)),
    "bomb in a long name": ("tar.gz", tar_bomb(gzip.compress, "name", 500 * MIB, tarfile.GNUTYPE_LONGNAME)),
    "bomb in a pax header": ("tar.gz", tar_bomb(gzip.compress, "header", 500 * MIB, tarfile.XHDTYPE)),
    "bomb in a global pax header": ("tar.gz", tar_bomb(gzip.compress, "header", 500 * MIB, tarfile.XGLTYPE)),
    "bomb after the end": ("tar.gz", lambda path: (tar(path), path.open("ab").write(zeros(gzip.compress, 600)))),
    "many empty files": ("tar.gz", many_empty_files),
}


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.fault(FAULT)
def test_hostile_archive_is_refused_and_leaves_nothing(tmp_path, tally):
    cases = HOSTILE | BOMBS if tally.every else HOSTILE | {"gz bomb": BOMBS["gz bomb"]}
    lost = []
    for number, (name, (suffix, make)) in enumerate(cases.items()):
        folder = tmp_path / str(number) / "data"
        folder.mkdir(parents=True)
        path = folder / f"archive.{suffix}"
        make(path)
        try:
            with tally:
                with pytest.raises(UserError) as caught:
                    unpack(path, folder / "prepared" / "into")
                assert str(path) in str(caught.value) or "no space in" in str(caught.value)
                assert "\n" not in str(caught.value)
                assert tree(folder.parent) <= {folder, path, folder / "prepared"}
                assert not any(Path(place, "evil").exists() for place in ("/", "/tmp", tmp_path))
        except (Exception, pytest.fail.Exception) as error:
            lost.append(f"{name}: {type(error).__name__}: {error}")
        path.unlink()
    assert not lost


@pytest.mark.fault(FAULT)
def test_command_prepares_nothing_from_a_hostile_archive(call, tmp_path, monkeypatch, tally):
    """The archive has no published checksum here, so that it is unpacked."""
    source = fakes.small(SOURCES["cifar100"])
    unchecked = tuple(dataclasses.replace(archive, checksum=None) for archive in source.archives)
    monkeypatch.setitem(SOURCES, "cifar100", dataclasses.replace(source, archives=unchecked))
    data, lost = tmp_path / "data", []
    names = [name for name, (suffix, _) in HOSTILE.items() if suffix == "tar.gz"]
    for name in names[:: tally.cases(1, 12)]:
        data.mkdir(exist_ok=True)
        HOSTILE[name][1](data / "cifar-100-python.tar.gz")
        before = tree(tmp_path)
        try:
            with tally:
                status, _, errors = call("experiments data", "cifar100")
                assert (status, errors.count("\n")) == (2, 1)
                assert tree(tmp_path) - before <= {data / "prepared", data / LOCK}
        except AssertionError as error:
            lost.append(f"{name}: {error}")
    assert not lost


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200"])
def test_command_refuses_an_archive_with_another_checksum(call, tmp_path, tally, name):
    """A sound archive that is not the official one: a changed, damaged or truncated copy."""
    (archive,) = SOURCES[name].archives
    path = tmp_path / "data" / "downloads" / archive.filename
    path.parent.mkdir(parents=True)
    zipped(path) if path.suffix == ".zip" else tar(path)
    checksum = hashlib.new(archive.algorithm, path.read_bytes()).hexdigest()
    with tally:
        status, _, errors = call("experiments data", name)
        assert (status, errors.count("\n")) == (2, 1)
        assert f"{checksum}, not " in errors
        assert {entry.name for entry in (tmp_path / "data").iterdir()} == {LOCK, "downloads"}
