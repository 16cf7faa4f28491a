"""Pickles that contain code, in every kind of file that the project reads: the code never runs."""

import ast
import builtins
import collections
import contextlib
import functools
import io
import os
import pickle
import random
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
from place import ROOT

from cskd.data.sources import cifar100
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.evaluate.predictions import load_predictions
from cskd.train.checkpoint import Checkpoints
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_yaml
from experiments.config.recipe import load_settings

FAULT = "pickles that carry code"
MUTATIONS = 300


class Calls:
    """An object whose unpickling calls a function. then: the further fields of ``__reduce__``."""

    def __init__(self, function: Callable, *arguments, then: tuple = ()):
        self.reduced = function, arguments, *then

    def __reduce__(self):
        return self.reduced


def attacks(mark: Path) -> dict[str, object]:
    """Objects whose unpickling creates the file ``mark``."""
    touch = f"touch '{mark}'"
    array = np.empty(2, object)
    array[:] = [Calls(os.system, touch), 1]
    return {
        "os.system": Calls(os.system, touch),
        "subprocess": Calls(subprocess.check_call, ["touch", str(mark)]),
        "eval": Calls(eval, f"__import__('os').system({touch!r})"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w').close()"),
        "open": Calls(open, str(mark), "w"),
        "class": Calls(io.FileIO, str(mark), "w"),
        "getattr": Calls(functools.partial, Calls(getattr, Calls(builtins.__import__, "os"), "system")),
        "Path.touch": Calls(Path.touch, mark),
        "nested": {"data": [({"deep": [Calls(os.system, touch)]},)]},
        "OrderedDict": collections.OrderedDict(weight=Calls(os.system, touch)),
        "array": array,
        "beside expected fields": {"data": array, "fine_labels": [0], "fine_label_names": ["x"]},
        "pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))),
        "memmap": Calls(np.memmap, str(mark), "u1", "w+", 0, (1,)),
        "items": Calls(collections.OrderedDict, then=(None, None, iter([("a", Calls(os.system, touch))]))),
        "state": Calls(collections.OrderedDict, (), then=({"x": Calls(os.system, touch)},)),
    }


def legacy(touch: str) -> dict[str, bytes]:
    """Opcodes that current picklers do not write."""
    quoted = touch.encode()
    return {
        "GLOBAL": b"cposix\nsystem\n(V" + quoted + b"\ntR.",
        "INST": b"(V" + quoted + b"\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nV" + quoted + b"\no.",
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + quoted + b"\ntR.",
        "_reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cposix\nsystem\n(I0\ntVb\ntR(V" + quoted + b"\nto.",
        "numpy.load": b"cnumpy\nload\n(V" + quoted + b"\ntR.",
        "codecs": b"c_codecs\nencode\n(cposix\nsystem\n(V" + quoted + b"\ntRVlatin1\ntR.",
        "other codec": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        "persistent": b"Pposix.system\n.",
        "extension": b"\x82\x01.",
    }


HARMLESS = {"getattr", "_reconstruct", "numpy.load", "codecs", "other codec", "persistent", "extension"}


def pickles(mark: Path, every: bool) -> Iterator[tuple[str, bytes]]:
    for name in attacks(mark):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1) if every else (2,):
            with contextlib.suppress(TypeError):  # an old protocol may have no opcode for it
                yield name, pickle.dumps(attacks(mark)[name], protocol=protocol)
    yield from legacy(f"touch '{mark}'").items()


def array_file(attack: object) -> bytes:
    """Return a .npy file whose array is a pickle."""
    array = np.empty(1, object)
    array[0] = attack
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def torch_file(attack: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(attack, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "the code ran"


@pytest.fixture
def check(tally, mark):
    """``check(name, function, *errors)``: the function raises one of the errors, and the code does not run.

    Without errors the function may raise any error, or none.
    """

    def run(name: str, function: Callable[[], object], *errors: type[Exception]) -> None:
        with tally:
            with pytest.raises(errors) if errors else contextlib.suppress(Exception):
                function()
            assert not mark.exists(), name

    return run


@pytest.fixture
def attack(mark) -> Calls:
    """An attack on the loaders of NumPy and torch, whose own options refuse all code."""
    return Calls(os.system, f"touch '{mark}'")


def test_attacks_work_on_the_ordinary_loaders(mark):
    for name, content in pickles(mark, every=False):
        with contextlib.suppress(Exception):
            pickle.loads(content)
        assert mark.exists() or name in HARMLESS, name
        mark.unlink(missing_ok=True)


@pytest.mark.fault(FAULT)
def test_cifar100_pickles_run_no_code(tmp_path, mark, check, tally):
    folder = fakes.cifar100_pickles(tmp_path)
    for file in ("meta", "train", "test") if tally.every else ("train",):
        sound = (folder / file).read_bytes()
        for name, content in pickles(mark, tally.every):
            (folder / file).write_bytes(content)
            check(f"{file}: {name}", lambda: cifar100.read(folder), UserError)
        (folder / file).write_bytes(sound)


@pytest.mark.fault(FAULT)
def test_mutated_cifar100_pickles_raise_only_user_errors(tmp_path, tally):
    folder, lost, draw = fakes.cifar100_pickles(tmp_path), [], random.Random(0)
    sound = {file: (folder / file).read_bytes() for file in ("meta", "train", "test")}
    for number in range(tally.cases(MUTATIONS, 20)):
        file = draw.choice(list(sound))
        content = bytearray(sound[file])
        opcodes = min(len(content), 600)  # the rest is pixels
        for _ in range(draw.choice((1, 1, 2, 8))):
            content[draw.choice((draw.randrange(opcodes), -1 - draw.randrange(opcodes)))] = draw.randrange(256)
        (folder / file).write_bytes(content if draw.random() < 0.8 else content[: draw.randrange(len(content))])
        try:
            with tally, contextlib.suppress(UserError):
                cifar100.read(folder)
        except Exception as error:
            lost.append(f"{number}: {type(error).__name__}: {error}")
        (folder / file).write_bytes(sound[file])
    assert not lost


@pytest.mark.fault(FAULT)
def test_prepared_arrays_run_no_code(tmp_path, check, attack):
    folder, image = tmp_path / "set", fakes.noise(0)
    write_dataset(folder, "set", Listing(["a"], [(image, 0)], [(image, 0)]), complete=True, source="made up")
    for file in ("train/labels.npy", "test/sizes.npy"):
        sound = (folder / file).read_bytes()
        for content in (array_file(attack), pickle.dumps(attack)):
            (folder / file).write_bytes(content)
            check(file, lambda: open_dataset(folder), UserError)
        (folder / file).write_bytes(sound)


@pytest.mark.fault(FAULT)
def test_predictions_run_no_code(tmp_path, check, attack):
    path = tmp_path / "predictions.npz"
    errors = (OSError, ValueError, KeyError, zipfile.BadZipFile)  # expected by the callers
    for content in (array_file(attack), pickle.dumps(attack)):
        np.savez(path, logits=np.eye(2), features=np.eye(2), labels=np.arange(2))
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings(action="ignore"):
            archive.writestr("labels.npy", content)  # of two members with one name, the later one is read
        check("in an npz", lambda: load_predictions(path), *errors)
        path.write_bytes(content)
        check("instead of an npz", lambda: load_predictions(path), *errors)


@pytest.mark.fault(FAULT)
def test_checkpoints_run_no_code(tmp_path, check, attack):
    path = tmp_path / "checkpoint.pt"
    for content in (torch_file(attack, zipped=True), torch_file(attack, zipped=False), pickle.dumps(attack)):
        path.write_bytes(content)
        check("checkpoint", lambda: Checkpoints(path, "run")._read(path))


@pytest.mark.fault(FAULT)
def test_yaml_tags_run_no_code(tmp_path, mark, check):
    path = tmp_path / "recipe.yaml"
    for tag in (
        f"!!python/object/apply:os.system [\"touch '{mark}'\"]",
        f"!!python/object/apply:subprocess.check_call [[touch, '{mark}']]",
        f"!!python/object/new:io.FileIO ['{mark}', w]",
        f"!!python/object/apply:eval [\"open('{mark}', 'w')\"]",
        "!!python/name:os.system",
        "!!python/module:os",
    ):
        path.write_text(f"data: {{reader: {tag}}}\n")
        check(tag, lambda: read_yaml(path), UserError)
        check(f"SET {tag}", lambda tag=tag: load_settings("digits", None, (f"width={tag}",)), UserError)


@pytest.mark.fault(FAULT)
def test_command_that_prepares_runs_no_code(call, tmp_path, mark, check):
    folder = fakes.cifar100_pickles(tmp_path / "data")
    (folder / "train").write_bytes(pickle.dumps(attacks(mark)["os.system"], protocol=2))
    check("data cifar100", lambda: call("experiments data", "cifar100"))
    status, _, errors = call("experiments data", "cifar100")
    assert (status, errors.count("\n")) == (2, 1)
    assert "it asks for posix.system" in errors


UNSAFE = {
    "eval", "exec", "joblib.load", "marshal.load", "marshal.loads", "os.system", "pandas.read_pickle",
    "pd.read_pickle", "pickle.load", "pickle.loads", "shelve.open", "yaml.full_load", "yaml.load", "yaml.unsafe_load",
}  # fmt: skip
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
# Runs the paper's released code from the clone that a user names with REFERENCE.
EXPECTED = {("experiments/bench/released.py", "exec")}


def test_sources_call_only_loaders_that_cannot_run_code():
    faults, loads = [], 0
    for package in ("cskd", "experiments", "analysis"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
                expected = (path.relative_to(ROOT).as_posix(), name) in EXPECTED
                if (name in UNSAFE and not expected) or options.get("shell"):
                    faults.append(f"{path}:{node.lineno}: {name}")
                if name in SAFE:
                    loads += 1
                    option, value = SAFE[name]
                    if options.get(option) is not value:
                        faults.append(f"{path}:{node.lineno}: {name} without {option}={value}")
    assert not faults
    assert loads >= 4
