"""Archives that are damaged or mean harm: refused, nothing outside the folder, nothing half-prepared."""

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
from place import Place

from cskd.data import prepare as catalog
from cskd.data.archive import unpack
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


def zeros(compress: Callable[[bytes], bytes], count: int) -> bytes:
    """``count`` MiB of zeros, compressed a piece at a time: all these formats may stand one after the other."""
    return compress(bytes(MIB)) * count


def tar_bomb(compress: Callable[[bytes], bytes], name: str, size: int, kind: bytes = tarfile.REGTYPE):
    """A tar of one member that says it has ``size`` bytes, all zero."""

    def make(path: Path) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        path.write_bytes(compress(info.tobuf()) + zeros(compress, min(size // MIB, 600) + 1))

    return make


def many_empty_files(path: Path) -> None:
    """A million files of no bytes, in a megabyte."""
    names = b"".join(tarfile.TarInfo(f"{number:04d}").tobuf() for number in range(2_000))
    path.write_bytes(gzip.compress(names) * 300)


def sparse(path: Path) -> None:
    """A terabyte of holes."""
    info = tarfile.TarInfo("holes")
    info.size = 0
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": ""}
    info.pax_headers = headers
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
        for _ in range(300):
            member.write(bytes(MIB))


def overlapping_zip(path: Path) -> None:
    """Many entries of the central directory that share the same compressed bytes."""
    zipped(path, ("kernel", "\0" * (16 * MIB), 0))
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    entry, end = content[at : content.rindex(b"PK\x05\x06")], content[content.rindex(b"PK\x05\x06") :]
    name = entry.index(b"kernel")
    entries = b"".join(entry[:name] + f"k{number:05d}".encode() + entry[name + 6 :] for number in range(2_000))
    directory = content[content.index(b"PK\x01\x02") : at] + entries
    start = content.index(b"PK\x01\x02")
    tail = end[:8] + struct.pack("<HHII", 2_001, 2_001, len(directory), start) + end[20:]
    path.write_bytes(content[:start] + directory + tail)


def lying_zip(path: Path) -> None:
    """Its directory says that a file of 4 MiB has 10 bytes."""
    zipped(path, ("liar", "\0" * (4 * MIB), 0))
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
    """The checksum of the second member's header is wrong: tarfile takes that for the end."""
    tar(path, ("second.txt", "x"), ("third.txt", "x"), mode="w")
    content = bytearray(path.read_bytes())
    content[2 * tarfile.BLOCKSIZE] ^= 0xFF
    path.write_bytes(content)


def cut_between_members(path: Path) -> None:
    tar(path, ("second.txt", "x"), mode="w")
    path.write_bytes(path.read_bytes()[: 2 * tarfile.BLOCKSIZE])


def of(make: Callable[..., None], *members: tuple, **options):
    return lambda path: make(path, *members, **options)


OUTSIDE = [
    "../evil",
    "/evil",
    "a/../../evil",
    "a/../../../../../evil",
    "a\\..\\evil",
    "C:\\evil",
    "..",
    "a/..",
    "//evil",
]
ODD = ["new\nline.jpg", "carriage\rreturn", "escape\x1b[2J", "tab\t", "delete\x7f", "d/" * 200 + "deep", "d/" * 1500]
ODD += ["x" * 300, "y/" + "ü" * 200]
LINKS = [
    ("link", tarfile.SYMTYPE, "/etc/passwd"),
    ("link", tarfile.SYMTYPE, "../../evil"),
    ("link", tarfile.SYMTYPE, "good.txt"),
    ("link", tarfile.LNKTYPE, "/etc/passwd"),
    ("link", tarfile.LNKTYPE, "../evil"),
    ("link", tarfile.LNKTYPE, "good.txt"),
    ("device", tarfile.CHRTYPE),
    ("device", tarfile.BLKTYPE),
    ("pipe", tarfile.FIFOTYPE),
]
# ending, what makes it; each is to be refused
HOSTILE = {
    **{f"tar {name[:20]!r} {len(name)}": ("tar.gz", of(tar, (name, "x"))) for name in OUTSIDE + ODD},
    **{f"gnu tar {name!r}": ("tar", of(tar, (name, "x"), mode="w", form=tarfile.GNU_FORMAT)) for name in OUTSIDE},
    **{f"tar folder {name!r}": ("tar.gz", of(tar, (name, tarfile.DIRTYPE))) for name in OUTSIDE},
    **{f"tar pax {name!r}": ("tar.gz", of(tar, ("fine", "x", {"path": name}))) for name in OUTSIDE},
    **{f"tar {kind!r} {'/'.join(to)}": ("tar.gz", of(tar, (name, kind, *to))) for name, kind, *to in LINKS},
    "tar link, then through it": ("tar.gz", of(tar, ("d", tarfile.SYMTYPE, "/tmp"), ("d/evil", "x"))),
    "tar twice": ("tar.gz", of(tar, ("a/b", "1"), ("a/b", "2"))),
    "tar twice, written otherwise": ("tar.gz", of(tar, ("a/b", "1"), ("./a//b", "2"))),
    "tar file, then folder": ("tar.gz", of(tar, ("a", "1"), ("a/b", "2"))),
    "tar file, then deep folder": ("tar.gz", of(tar, ("a", "1"), ("a/b/c/d", "2"))),
    "tar folder, then file": ("tar.gz", of(tar, ("a/b", "1"), ("a", "2"))),
    "tar file, then folder's own": ("tar.gz", of(tar, ("a", "1"), ("a", tarfile.DIRTYPE))),
    **{f"zip {name[:20]!r} {len(name)}": ("zip", of(zipped, (name, "x", 0))) for name in OUTSIDE + ODD},
    **{
        f"zip mode {kind:o}": ("zip", of(zipped, ("node", "/etc/passwd", kind | 0o777)))
        for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
    },
    "zip file, then folder": ("zip", of(zipped, ("a", "1", 0), ("a/b", "2", 0))),
    "zip encrypted": ("zip", encrypted_zip),
    "zip that lies": ("zip", lying_zip),
    "zip bomb": ("zip", zip_bomb),
    "zip of overlapping files": ("zip", overlapping_zip),
    "gz bomb": ("tar.gz", tar_bomb(gzip.compress, "zeros", 600 * MIB)),
    "bz2 bomb": ("tar.gz", tar_bomb(bz2.compress, "zeros", 600 * MIB)),
    "xz bomb": ("tar.gz", tar_bomb(lzma.compress, "zeros", 600 * MIB)),
    "a petabyte claimed": ("tar.gz", tar_bomb(gzip.compress, "zeros", 1 << 50)),
    "a petabyte claimed, not compressed": ("tar", tar_bomb(bytes, "zeros", 1 << 50)),
    "bomb in a long name": ("tar.gz", tar_bomb(gzip.compress, "name", 500 * MIB, tarfile.GNUTYPE_LONGNAME)),
    "bomb in a pax header": ("tar.gz", tar_bomb(gzip.compress, "header", 500 * MIB, tarfile.XHDTYPE)),
    "bomb in a global pax header": ("tar.gz", tar_bomb(gzip.compress, "header", 500 * MIB, tarfile.XGLTYPE)),
    "bomb after the end": ("tar.gz", lambda path: (tar(path), path.open("ab").write(zeros(gzip.compress, 600)))),
    "a million empty files": ("tar.gz", many_empty_files),
    "a terabyte of holes": ("tar.gz", sparse),
    "a header damaged": ("tar", damaged_header),
    "cut between two members": ("tar", cut_between_members),
    "empty": ("tar", lambda path: path.write_bytes(b"")),
    "empty zip": ("zip", lambda path: path.write_bytes(b"")),
    "text": ("tar.gz", lambda path: path.write_text("<html>404</html>")),
    "a zip called tar": ("tar.gz", of(zipped)),
    "a tar called zip": ("zip", of(tar)),
    **{f"gz cut to {part}": ("tar.gz", lambda path, part=part: cut(path, part)) for part in (0.1, 0.5, 0.9, 0.999)},
}
SLOW = ("bomb", "million", "overlapping")  # of making them


def cut(path: Path, part: float) -> None:
    tar(path, ("noise", os.urandom(20_000).hex()))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def outside(path: Path) -> list[bool]:
    """Whether there is what hostile archives would write elsewhere."""
    return [Path(place, "evil").exists() for place in ("/", "/tmp", path.parent, path.parent.parent)]


@pytest.mark.fault(FAULT)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, tally):
    names = [name for name in HOSTILE if tally.every or not any(word in name for word in SLOW)]
    lost = []
    for number, name in enumerate(names[:: tally.cases(1, 2)]):
        ending, make = HOSTILE[name]
        folder = tmp_path / str(number) / "data"
        folder.mkdir(parents=True)
        path = folder / f"archive.{ending}"
        make(path)
        try:
            with tally:
                with pytest.raises(UserError) as caught:
                    unpack(path, folder / "prepared" / "into")
                assert str(path) in str(caught.value) or "no space in" in str(caught.value)
                assert "\n" not in str(caught.value)
                assert tree(folder.parent) <= {folder, path, folder / "prepared"}
                assert not any(outside(path))
        except (Exception, pytest.fail.Exception) as error:
            lost.append(f"{name}: {type(error).__name__}: {error}")
        path.unlink()
    assert not lost


@pytest.fixture
def unchecked(monkeypatch):
    """The catalogue with the small fake datasets' numbers, whose archives nobody has published a checksum of."""
    for name, source in list(catalog.SOURCES.items()):
        if not source.bundled:
            archives = tuple(dataclasses.replace(archive, checksum=None) for archive in source.archives)
            monkeypatch.setitem(catalog.SOURCES, name, dataclasses.replace(fakes.small(source), archives=archives))


@pytest.mark.fault(FAULT)
def test_the_command_prepares_nothing_from_a_hostile_archive(call, tmp_path, unchecked, tally):
    data = tmp_path / "data"
    lost = []
    names = [
        name for name, (ending, _) in HOSTILE.items() if ending == "tar.gz" and not any(word in name for word in SLOW)
    ]
    for name in names[:: tally.cases(1, 6)]:
        data.mkdir(exist_ok=True)
        path = data / "cifar-100-python.tar.gz"
        HOSTILE[name][1](path)
        before = tree(tmp_path)
        try:
            with tally:
                status, _, errors = call("experiments data", "cifar100")
                assert (status, errors.count("\n")) == (2, 1)
                assert tree(tmp_path) - before <= {data / "prepared"}
        except AssertionError as error:
            lost.append(f"{name}: {error}")
    assert not lost


ARCHIVES = [
    (name, archive) for name, source in catalog.SOURCES.items() for archive in source.archives if archive.checksum
]


@pytest.mark.fault(FAULT)
def test_the_command_refuses_an_archive_of_another_checksum(tmp_path, tally):
    """Sound archives, but not the official ones: what a changed, damaged or truncated copy is."""
    for name, archive in ARCHIVES[: tally.cases(len(ARCHIVES), 1)]:
        place = Place(tmp_path / archive.filename)
        data = place.folder / "data"
        (data / "downloads").mkdir(parents=True)
        path = data / "downloads" / archive.filename
        (zipped if path.suffix == ".zip" else tar)(path, *([("a", "b", 0)] if path.suffix == ".zip" else [("a", "b")]))
        for other in catalog.SOURCES[name].archives:  # a list without a checksum, so that nothing is fetched
            if other != archive:
                (data / "downloads" / other.filename).write_bytes(path.read_bytes())
        found = hashlib.new(archive.algorithm, path.read_bytes()).hexdigest()
        before = tree(place.folder)
        with tally:
            status, _, errors = place.run("experiments data", name)
            assert (status, errors.count("\n")) == (2, 1)
            assert "it is damaged or another file" in errors
            assert found in errors
            assert tree(place.folder) == before
