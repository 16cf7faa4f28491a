"""The preparation of datasets: killed at any moment, and archives that are not the official ones.

An archive is unpacked only if its checksum is right, so that the content of another one does not matter.
"""

import hashlib
import io
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path

import fakes
import pytest
from place import command_of

from cskd.data.prepare import LOCK
from cskd.data.sources.registry import SOURCES
from cskd.utils import cli

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate")


def run_and_kill(data_dir: Path, event: int) -> bool:
    """Prepare CUB-200 in a copy of this process, killed at its n-th file event below ``data_dir``.

    Return False if it ended before.
    """
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    seen = 0

    def hook(name: str, values: tuple) -> None:
        nonlocal seen
        if name in EVENTS and str(values[0]).startswith(str(data_dir)):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the process ends with it
        sys.argv = ["experiments data", "cub200"]
        sys.addaudithook(hook)
        cli.run(command_of("experiments data").main)
    finally:
        os._exit(0)


@pytest.mark.fault("kill -9 while a dataset is prepared")
@pytest.mark.parametrize("start", ["download", "replace"])
def test_preparation_killed_at_any_file_operation_goes_on(call, tmp_path, monkeypatch, tally, start):
    """download: from the address. replace: an incomplete copy is prepared, and now prepared again from all images."""
    data = tmp_path / "data"
    source = fakes.pack(SOURCES["cub200"], fakes.cub200(tmp_path / "made"), tmp_path / "server", "file://{}")
    monkeypatch.setitem(SOURCES, "cub200", source)
    if start == "replace":
        shutil.copytree(tmp_path / "made", data)
        image = next((data / "CUB_200_2011" / "images").rglob("*.jpg"))
        image.rename(tmp_path / "missing")
        assert call("experiments data", "cub200", "--partial")[0] == 0
        (tmp_path / "missing").rename(image)
    else:
        data.mkdir()
    shutil.copytree(data, tmp_path / "before")
    event, killed = 0, True
    while killed:
        event += 1 if tally.every else 25
        killed = run_and_kill(data, event)
        with tally:
            status, output, errors = call("experiments data", "cub200")
            assert (status, errors) == (0, ""), event
            assert "9 training and 6 test images, " in output
            assert [path.name for path in (data / "prepared").iterdir()] == ["cub200"], event
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "before", data)
    assert event > 50


def sound_archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(__file__, "set/file.txt")
    return file.getvalue()


@pytest.mark.fault("archives with a wrong checksum")
@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200", "dogs"])
def test_archive_with_another_checksum_is_refused(call, tmp_path, tally, name):
    archive = SOURCES[name].archives[-1]
    path = tmp_path / "data" / "downloads" / archive.filename
    path.parent.mkdir(parents=True)
    for content in (sound_archive(), sound_archive()[:-20], b"", b"<html>404</html>"):
        path.write_bytes(content)
        checksum = hashlib.new(archive.algorithm, content).hexdigest()
        with tally:
            status, _, errors = call("experiments data", name)
            assert (status, errors.count("\n")) == (2, 1)
            assert f"{checksum}, not " in errors
            assert {entry.name for entry in (tmp_path / "data").iterdir()} == {LOCK, "downloads"}
