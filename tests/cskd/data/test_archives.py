"""Downloads from a server on this machine, and archives that mean harm."""

import errno
import hashlib
import io
import os
import re
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cskd.data import archive as archives
from cskd.data.archive import Archive, download, unpack, verify
from cskd.utils.errors import UserError

CONTENT = os.urandom(3 << 20)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``faults`` says, request by request, what goes wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.ranges = [], []

    def archive(self, checksum: str | None = MD5) -> Archive:
        return Archive(f"http://127.0.0.1:{self.server_port}/file.tar", "file.tar", checksum)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing on the terminal."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault != "no ranges" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = bytearray(CONTENT[start:])
        if fault == "damage":
            body[0] ^= 1
        self.wfile.write(body[: len(body) // 2] if fault == "close early" else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(archives, "BACKOFF_S", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_download_is_verified_and_its_progress_told(server, tmp_path):
    message = []
    path = download(server.archive(), tmp_path / "downloads", lambda *step: message.append(step))
    assert path == tmp_path / "downloads" / "file.tar"
    assert path.read_bytes() == CONTENT
    assert message[0] == ("download file.tar", 0, len(CONTENT))
    assert ("download file.tar", len(CONTENT), len(CONTENT)) in message
    assert message[-1] == ("check file.tar", len(CONTENT), len(CONTENT))
    assert names(tmp_path / "downloads") == ["file.tar"]


def test_a_download_without_a_published_checksum_is_taken(server, tmp_path):
    assert download(server.archive(None), tmp_path).read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_ended(server, tmp_path):
    def interrupt(stage, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.archive(), tmp_path, interrupt)
    done = (tmp_path / "file.tar.part").stat().st_size
    assert 0 < done < len(CONTENT)
    message = []
    assert download(server.archive(), tmp_path, lambda *step: message.append(step)).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={done}-"]
    assert message[0] == ("download file.tar", done, len(CONTENT))
    assert names(tmp_path) == ["file.tar"]


@pytest.mark.parametrize("faults", [["close early"], ["close early", "close early"], [503], [429, "close early", 500]])
def test_passing_failures_are_tried_again(server, tmp_path, faults):
    server.faults = list(faults)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == len(faults) + 1


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT[:1000])
    server.faults = ["no ranges"]
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [CONTENT + b"more", b"\0" * 1000])
def test_a_part_of_something_else_is_thrown_away(server, tmp_path, part):
    (tmp_path / "file.tar.part").write_bytes(part)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_a_wrong_checksum_is_told_and_nothing_stays(server, tmp_path):
    server.faults = ["damage"]
    with pytest.raises(UserError) as caught:
        download(server.archive(), tmp_path)
    message = str(caught.value)
    for part in ("file.tar could not be downloaded (it has md5 ", server.archive().url, str(tmp_path)):
        assert part in message
    assert MD5.replace(":", " ") in message
    assert names(tmp_path) == []
    assert len(server.ranges) == 1


@pytest.mark.parametrize("code", [403, 404])
def test_a_lasting_refusal_is_told_at_once(server, tmp_path, code):
    server.faults = [code]
    with pytest.raises(UserError, match=f"HTTP {code} "):
        download(server.archive(), tmp_path)
    assert len(server.ranges) == 1


def test_no_network_gives_one_line_with_all_that_is_needed(server, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise archives.urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is\nunreachable"))

    monkeypatch.setattr(archives.urllib.request, "urlopen", refuse)
    with pytest.raises(UserError) as caught:
        download(server.archive(), tmp_path / "downloads")
    archive = server.archive()
    assert str(caught.value) == (
        f"file.tar could not be downloaded ([Errno {errno.ENETUNREACH}] Network is unreachable): "
        f"get {archive.url} by other means and put it in {tmp_path / 'downloads'} as file.tar ({MD5.replace(':', ' ')})"
    )
    assert names(tmp_path / "downloads") == []


def test_a_download_that_does_not_fit_is_refused(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="no space in"):
        download(server.archive(), tmp_path)
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_told(server, tmp_path):
    (tmp_path / "downloads").write_text("")
    with pytest.raises(UserError, match="downloads is not a folder"):
        download(server.archive(), tmp_path / "downloads")


def test_verifying_names_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "file.tar"
    path.write_bytes(CONTENT)
    sha256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    for checksum in (None, MD5, sha256):
        verify(path, Archive("http://a/file.tar", "file.tar", checksum))
    with pytest.raises(UserError, match=rf"{path} has md5 .*, not md5 0000: .*delete it"):
        verify(path, Archive("http://a/file.tar", "file.tar", "md5:0000"))


def make_tar(path, members, mode="w:gz"):
    """members: (name, content or a tarfile type, link target)."""
    with tarfile.open(path, mode) as tar:
        for name, content, *link in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
            else:
                info.type = content
                info.linkname = link[0] if link else ""
                tar.addfile(info)
    return path


def make_zip(path, members):
    """members: (name, content, Unix mode or 0)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_files_are_unpacked(tmp_path, mode):
    folder = ("set", tarfile.DIRTYPE)
    path = make_tar(tmp_path / "a.tar", [(".", tarfile.DIRTYPE), folder, ("set/x.txt", "x"), ("y", "y")], mode)
    message = []
    unpack(path, tmp_path / "into", lambda *step: message.append(step))
    assert names(tmp_path / "into") == ["set", "set/x.txt", "y"]
    assert (tmp_path / "into" / "set" / "x.txt").read_text() == "x"
    assert {step[0] for step in message} == {"unpack a.tar"}
    assert all(done <= total for _, done, total in message)


def test_zip_files_are_unpacked_and_several_archives_share_a_folder(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", [("set/x.txt", "x", 0), ("set/", "", 0)]), tmp_path / "into")
    unpack(make_tar(tmp_path / "b.tar", [("list.txt", "y")]), tmp_path / "into")
    assert names(tmp_path / "into") == ["list.txt", "set", "set/x.txt"]
    with pytest.raises(UserError, match=r"a second list\.txt"):
        unpack(tmp_path / "b.tar", tmp_path / "into")
    assert names(tmp_path) == ["a.zip", "b.tar", "into", "into/list.txt", "into/set", "into/set/x.txt"]


OUTSIDE = ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", ".."]


@pytest.mark.parametrize(
    "member",
    [
        *((name, "x") for name in OUTSIDE),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("link", tarfile.SYMTYPE, "inside"),
        ("link", tarfile.LNKTYPE, "../evil"),
        ("device", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_a_malicious_tar_is_refused_and_leaves_nothing(tmp_path, member):
    path = make_tar(tmp_path / "a.tar.gz", [("good.txt", "x"), member])
    _refused(path, tmp_path, repr(member[0]))


@pytest.mark.parametrize(
    "member", [*((name, "x", 0) for name in OUTSIDE), ("link", "/etc/passwd", stat.S_IFLNK | 0o777)]
)
def test_a_malicious_zip_is_refused_and_leaves_nothing(tmp_path, member):
    path = make_zip(tmp_path / "a.zip", [("good.txt", "x", 0), member])
    _refused(path, tmp_path, repr(member[0]))


def _refused(path, folder, text):
    with pytest.raises(UserError) as caught:
        unpack(path, folder / "below" / "into")
    message = str(caught.value)
    assert str(path) in message
    assert text in message
    assert "\n" not in message
    assert [name for name in names(folder) if name != "below"] == [path.name]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BOMB_FROM", 1 << 20)
    zeros = "\0" * (4 << 20)
    for path in (
        make_zip(tmp_path / "a.zip", [("zeros", zeros, 0)]),
        make_tar(tmp_path / "b.tar.gz", [("zeros", zeros)]),
    ):
        with pytest.raises(UserError, match="not the official archive"):
            unpack(path, tmp_path / "into")
    assert names(tmp_path) == ["a.zip", "b.tar.gz"]


def test_an_archive_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 5)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    for path in (
        make_zip(tmp_path / "a.zip", [("x", "four", 0), ("y", "four", 0)]),
        make_tar(tmp_path / "b.tar.gz", [("x", "more than five")]),
    ):
        with pytest.raises(UserError, match="no space in"):
            unpack(path, tmp_path / "into")
    assert names(tmp_path) == ["a.zip", "b.tar.gz"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_archive_is_told_and_leaves_nothing(tmp_path, mode, keep):
    noise = [os.urandom(3000).hex() for _ in range(10)]
    if mode == "zip":
        path = make_zip(tmp_path / "a.zip", [(f"{index}", text, 0) for index, text in enumerate(noise)])
    else:
        path = make_tar(tmp_path / "a.tar", [(f"{index}", text) for index, text in enumerate(noise)], mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    _refused(path, tmp_path, "damaged or truncated")


def test_a_damaged_archive_is_told(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [("noise", os.urandom(30000).hex())])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    _refused(path, tmp_path, "damaged or truncated")


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(UserError, match=r"absent\.tar"):
        unpack(tmp_path / "absent.tar", tmp_path / "into")
