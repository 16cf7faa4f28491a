"""Pickles that contain code, in every kind of file that is read: the code never runs."""

import collections
import contextlib
import io
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch

from cskd.data.sources import cifar100
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.evaluate.predictions import load_predictions
from cskd.train.checkpoint import Checkpoints
from cskd.utils.errors import UserError


class Calls:
    """An object whose unpickling calls a function. then: the further fields of ``__reduce__``."""

    def __init__(self, function: Callable, *arguments, then: tuple = ()):
        self.reduced = function, arguments, *then

    def __reduce__(self):
        return self.reduced


def pickles(touch: str) -> dict[str, bytes]:
    """Return pickles that run the command, with each opcode that names a function, builds or fills an object."""
    system, quoted = Calls(os.system, touch), touch.encode()
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    return {
        **{f"protocol {protocol}": pickle.dumps(system, protocol=protocol) for protocol in protocols},
        "nested": pickle.dumps({"data": [({"deep": [system]},)], "fine_labels": [0], "fine_label_names": ["x"]}),
        "items": pickle.dumps(Calls(collections.OrderedDict, then=(None, None, iter([("a", system)])))),
        "state": pickle.dumps(Calls(collections.OrderedDict, then=({"x": system},))),
        "pickle in a pickle": pickle.dumps(Calls(pickle.loads, pickle.dumps(system))),
        "INST": b"(V" + quoted + b"\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nV" + quoted + b"\no.",
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + quoted + b"\ntR.",
    }


# The functions that the reader allows, called with others or with a codec, and references that it cannot resolve.
MISUSED = {
    "_reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cposix\nsystem\n(I0\ntVb\ntR(Vtrue\nto.",
    "numpy.load": b"cnumpy\nload\n(Vtrue\ntR.",
    "codecs": b"c_codecs\nencode\n(cposix\nsystem\n(Vtrue\ntRVlatin1\ntR.",
    "other codec": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    "persistent": b"Pposix.system\n.",
    "extension": b"\x82\x01.",
}


@pytest.fixture
def mark(tmp_path) -> Path:
    """The file that the code would make."""
    return tmp_path / "mark"


def test_attacks_work_on_the_ordinary_loader(mark):
    for name, content in pickles(f"touch '{mark}'").items():
        with contextlib.suppress(Exception):
            pickle.loads(content)
        assert mark.exists(), name
        mark.unlink()


@pytest.mark.parametrize("file", ["meta", "train", "test"])
def test_cifar100_pickles_run_no_code(tmp_path, mark, file):
    folder = fakes.cifar100_pickles(tmp_path)
    for name, content in (pickles(f"touch '{mark}'") | MISUSED).items():
        (folder / file).write_bytes(content)
        with pytest.raises(UserError):
            cifar100.read(folder)
        assert not mark.exists(), name


def test_mutated_cifar100_pickles_raise_only_user_errors(tmp_path):
    folder, draw = fakes.cifar100_pickles(tmp_path), random.Random(0)
    sound = {file: (folder / file).read_bytes() for file in ("meta", "train", "test")}
    for _ in range(100):
        file = draw.choice(list(sound))
        content = bytearray(sound[file])
        opcodes = min(len(content), 600)  # the rest is pixels
        for _ in range(draw.choice((1, 1, 2, 8))):
            content[draw.choice((draw.randrange(opcodes), -1 - draw.randrange(opcodes)))] = draw.randrange(256)
        (folder / file).write_bytes(content if draw.random() < 0.8 else content[: draw.randrange(len(content))])
        with contextlib.suppress(UserError):
            cifar100.read(folder)
        (folder / file).write_bytes(sound[file])


def array_of(attack: object) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = attack
    return array


# Each writes a file whose pickle is the attack.
FORMS = {
    "npy": lambda file, attack: np.save(file, array_of(attack), allow_pickle=True),
    "npz": lambda file, attack: np.savez(file, logits=np.eye(1), features=np.eye(1), labels=array_of(attack)),
    "pt": lambda file, attack: torch.save(attack, file),
    "old pt": lambda file, attack: torch.save(attack, file, _use_new_zipfile_serialization=False),
    "pickle": lambda file, attack: pickle.dump(attack, file),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_predictions_and_checkpoints_run_no_code(tmp_path, mark, form):
    file, image = io.BytesIO(), fakes.noise(0)
    FORMS[form](file, Calls(os.system, f"touch '{mark}'"))
    folder = tmp_path / "set"
    write_dataset(folder, "set", Listing(["a"], [(image, 0)], [(image, 0)]), complete=True, source="made up")
    readers = {
        folder / "train" / "labels.npy": lambda path: open_dataset(folder),
        tmp_path / "predictions.npz": load_predictions,
        tmp_path / "checkpoint.pt": Checkpoints(tmp_path / "checkpoint.pt", "run")._read,
    }
    for path, read in readers.items():
        path.write_bytes(file.getvalue())
        with contextlib.suppress(Exception):
            read(path)
        assert not mark.exists(), path.name
