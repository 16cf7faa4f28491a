"""CIFAR-100's pickles are read without giving them a chance to run anything."""

import os
import pickle

import fakes
import numpy as np
import pytest

from cskd.data.sources.cifar100 import safe_pickle_load
from cskd.utils.errors import UserError


class Malicious:
    """Runs a command when unpickled by the ordinary loader."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        safe_pickle_load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    path = tmp_path / "train"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"data": Malicious(f"touch {tmp_path}/ran")}, protocol=protocol))
        assert f"{os.system.__module__}.system" in refusal(path)
    for name in ("builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromfile", "_codecs\ndecode"):
        path.write_bytes(f"c{name}\n(Vx\ntR.".encode())
        refusal(path)
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    assert "rot13" in refusal(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_that_numpy_writes_today_are_read(tmp_path, protocol):
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "names": ["a", b"\xff"], "labels": [0, 1]}
    (tmp_path / "file").write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = safe_pickle_load(tmp_path / "file")
    assert (loaded["data"] == content["data"]).all()
    assert loaded["names"] == ["a", b"\xff"]


def test_a_missing_or_damaged_pickle_is_told_by_name(tmp_path):
    assert "is missing" in refusal(tmp_path / "absent")
    whole = (fakes.cifar100_pickles(tmp_path) / "train").read_bytes()
    damaged = tmp_path / "damaged"
    for content in (b"", b"\x80", b"text", whole[:100], whole[:-1], whole[:5000] + whole[5100:]):
        damaged.write_bytes(content)
        refusal(damaged)
