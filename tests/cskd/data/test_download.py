"""Downloads from a local server: resume, retries, checksums."""

import errno
import hashlib
import os
import re
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cskd.data import archives as module
from cskd.data.archives import download, verify
from cskd.data.sources.base import Archive
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

    def archive(self, checksum: str | None = MD5) -> Archive:
        return Archive(f"http://127.0.0.1:{self.server_port}/file.tar", "file.tar", checksum)


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


def test_download_is_verified_and_reports_progress(server, tmp_path):
    steps = []
    path = download(server.archive(), tmp_path / "downloads", lambda *step: steps.append(step))
    assert path.read_bytes() == CONTENT
    assert steps[0] == ("download file.tar", 0, len(CONTENT))
    assert steps[-1] == ("check file.tar", len(CONTENT), len(CONTENT))
    assert list((tmp_path / "downloads").iterdir()) == [path]


def test_interrupted_download_resumes_where_it_ended(server, tmp_path):
    def interrupt(stage, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.archive(), tmp_path, interrupt)
    done = (tmp_path / "file.tar.part").stat().st_size
    assert 0 < done < len(CONTENT)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={done}-"]


@pytest.mark.parametrize("faults", [["close early", "close early"], [429, "close early", 500]])
def test_temporary_failures_are_retried(server, tmp_path, faults):
    server.faults = list(faults)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == len(faults) + 1


@pytest.mark.parametrize(
    ("part", "faults", "requests"),
    [
        (CONTENT, [], 1),  # complete already
        (CONTENT[:1000], ["no ranges"], 1),
        (CONTENT + b"more", [], 2),
        (b"\0" * 1000, [], 2),
    ],
    ids=["complete", "server without ranges", "too long", "other content"],
)
def test_part_file_is_completed_or_replaced(server, tmp_path, part, faults, requests):
    (tmp_path / "file.tar.part").write_bytes(part)
    server.faults = list(faults)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == requests


@pytest.mark.parametrize(("fault", "reason"), [("damage", "it has md5 "), (404, "HTTP 404 ")])
def test_permanent_failure_ends_at_once_with_instructions(server, tmp_path, fault, reason):
    server.faults = [fault]
    with pytest.raises(UserError, match=re.escape(f"file.tar could not be downloaded ({reason}")) as caught:
        download(server.archive(), tmp_path)
    assert str(caught.value).endswith(
        f"download {server.archive().url} by other means and save it as {tmp_path / 'file.tar'} "
        f"({MD5.replace(':', ' ')})"
    )
    assert list(tmp_path.iterdir()) == []
    assert len(server.ranges) == 1


def test_missing_network_gives_one_line(server, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise module.urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is\nunreachable"))

    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match="Network is unreachable"):
        download(server.archive(), tmp_path)


def test_download_larger_than_the_disk_is_refused(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="no space in"):
        download(server.archive(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_verify_accepts_only_the_published_checksum(tmp_path):
    path = tmp_path / "file.tar"
    path.write_bytes(CONTENT)
    for checksum in (None, MD5, "sha256:" + hashlib.sha256(CONTENT).hexdigest()):
        verify(path, Archive("http://a/file.tar", "file.tar", checksum))
    with pytest.raises(UserError, match=rf"{path} has md5 .*, not md5 0000: .*delete it"):
        verify(path, Archive("http://a/file.tar", "file.tar", "md5:0000"))
