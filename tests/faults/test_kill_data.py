"""``kill -9`` at any moment of a dataset's first preparation: the same command goes on."""

import os
import shutil
import signal
import sys
from pathlib import Path

import fakes
import pytest
from place import command_of

from cskd.data.sources.registry import SOURCES
from cskd.utils import cli

FAULT = "kill -9 while a dataset is prepared"
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate")


def run_and_kill(data_dir: Path, event: int, *arguments: str) -> bool:
    """Run ``experiments data`` in a copy of this process, killed at its n-th file event below ``data_dir``.

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
        sys.argv = ["experiments data", *arguments]
        sys.addaudithook(hook)
        cli.run(command_of("experiments data").main)
    finally:
        os._exit(0)


@pytest.mark.fault(FAULT)
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
        killed = run_and_kill(data, event, "cub200")
        with tally:
            status, output, errors = call("experiments data", "cub200")
            assert (status, errors) == (0, ""), event
            assert "9 training and 6 test images, " in output
            assert [path.name for path in (data / "prepared").iterdir()] == ["cub200"], event
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "before", data)
    assert event > 50
