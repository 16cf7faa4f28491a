"""Downloads from a local server: resume, retries, checksums."""

import dataclasses
import hashlib
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cskd.data import archives as module
from cskd.data.archives import download
from cskd.data.sources.base import Archive
from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError

CONTENT = os.urandom(3 << 20)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT. ``faults`` lists the fault of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.ranges = [], []

    def handle_error(self, *_):
        """Print nothing if the client closes the connection."""

    def archive(self) -> Archive:
        return Archive(f"http://127.0.0.1:{self.server_port}/file.tar", "file.tar", MD5)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1]) if requested and fault != "no ranges" else 0
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
    monkeypatch.setattr(module, "BACKOFF_S", 0.001)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_interrupted_download_resumes_where_it_ended_and_is_verified(server, tmp_path):
    def interrupt(stage, done, total):
        if done:
            raise KeyboardInterrupt

    folder, steps = tmp_path / "downloads", []
    with pytest.raises(KeyboardInterrupt):
        download(server.archive(), folder, interrupt)
    done = (folder / "file.tar.part").stat().st_size
    assert 0 < done < len(CONTENT)
    path = download(server.archive(), folder, lambda *step: steps.append(step))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={done}-"]
    assert steps[0] == ("download file.tar", done, len(CONTENT))
    assert steps[-1] == ("check file.tar", len(CONTENT), len(CONTENT))
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(
    ("part", "faults", "requests"),
    [
        (None, [429, "close early", 500], 4),
        (CONTENT, [], 1),  # complete already
        (CONTENT[:1000], ["no ranges"], 1),
        (CONTENT + b"more", [], 2),
        (b"\0" * 1000, [], 2),
    ],
    ids=["temporary failures", "complete", "server without ranges", "too long", "other content"],
)
def test_part_file_is_completed_or_replaced(server, tmp_path, part, faults, requests):
    if part:
        (tmp_path / "file.tar.part").write_bytes(part)
    server.faults = list(faults)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == requests


@pytest.mark.parametrize(("fault", "reason"), [("damage", "it has md5 "), (404, "HTTP 404 ")])
def test_permanent_failure_ends_at_once_with_instructions(server, tmp_path, fault, reason):
    server.faults = [fault]
    with pytest.raises(UserError, match=re.escape(f"file.tar could not be downloaded ({reason}")) as caught:
        download(server.archive(), tmp_path)
    assert str(caught.value).endswith(server.archive().manual_download(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert len(server.ranges) == 1


def test_mirror_gives_the_file_if_the_official_address_fails(server, tmp_path):
    server.faults = [404]
    official = server.archive()
    archive = dataclasses.replace(official, mirrors=(official.url.replace("file.tar", "copy.tar"),))
    assert download(archive, tmp_path).read_bytes() == CONTENT
    (tmp_path / "file.tar").unlink()
    server.faults = [404, "damage"]
    with pytest.raises(UserError, match=r"file\.tar: HTTP 404 .*; http.*copy\.tar: it has md5 ") as caught:
        download(archive, tmp_path)
    assert str(caught.value).endswith(official.manual_download(tmp_path))


def test_every_archive_that_is_unpacked_has_a_checksum():
    """Therefore a hostile archive is never unpacked; a list without a checksum is copied."""
    archives = [archive for source in SOURCES.values() for archive in source.archives]
    assert all(archive.checksum or archive.filename.endswith(".txt") for archive in archives)
