"""Pickles that carry code, in the place of every file that is read: the code never runs."""

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
from place import ROOT, Place

from analysis.load.cache import load_cached
from cskd.data.sources import cifar100
from cskd.data.store import open_dataset
from cskd.evaluate.predictions import load_predictions
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_yaml
from experiments.config.datasets import prepare_data
from experiments.config.recipe import load_settings
from experiments.config.spec import make_spec
from experiments.launch.build import build_trainer
from experiments.runs.folder import DONE, RunFolder

FAULT = "pickles that carry code"
MUTATED = 300  # damaged pickles


class Calls:
    """What an ordinary loader makes the result of a call of. then: state, items and entries, as of ``__reduce__``."""

    def __init__(self, function: Callable, *arguments, then: tuple = ()):
        self.reduced = function, arguments, *then

    def __reduce__(self):
        return self.reduced


class New:
    """What an ordinary loader makes by ``FileIO.__new__`` and ``__init__``'s arguments: the opcodes for classes."""

    def __init__(self, path: str):
        self.path = path

    def __reduce_ex__(self, protocol):
        return io.FileIO, (self.path, "w")


def attacks(mark: Path) -> dict[str, object]:
    """Objects whose unpickling makes the file ``mark``."""
    touch = f"touch '{mark}'"
    array = np.empty(2, object)
    array[:] = [Calls(os.system, touch), 1]
    packed = pickle.dumps(Calls(os.system, touch))
    return {
        "os.system": Calls(os.system, touch),
        "subprocess": Calls(subprocess.check_call, ["touch", str(mark)]),
        "eval": Calls(eval, f"__import__('os').system({touch!r})"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w').close()"),
        "open": Calls(open, str(mark), "w"),
        "a class": New(str(mark)),
        "getattr": Calls(functools.partial, Calls(getattr, Calls(builtins.__import__, "os"), "system"), then=()),
        "partial": Calls(functools.partial(os.system, touch)),
        "Path.touch": Calls(Path.touch, mark),
        "nested": {"data": [({"deep": [Calls(os.system, touch)]},)]},
        "an OrderedDict": collections.OrderedDict(weight=Calls(os.system, touch)),
        "in an array": array,
        "beside what is expected": {"data": array, "fine_labels": [0], "fine_label_names": ["x"]},
        "a pickle in a pickle": Calls(pickle.loads, packed),
        "numpy's memmap": Calls(np.memmap, str(mark), "u1", "w+", 0, (1,)),
        "items": Calls(collections.OrderedDict, then=(None, None, iter([("a", Calls(os.system, touch))]))),
        "state": Calls(collections.OrderedDict, (), then=({"x": Calls(os.system, touch)},)),
    }


def legacy(touch: str) -> dict[str, bytes]:
    """Opcodes that today's picklers no longer write."""
    quoted = touch.encode()
    return {
        "GLOBAL": b"cposix\nsystem\n(V" + quoted + b"\ntR.",
        "INST": b"(V" + quoted + b"\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nV" + quoted + b"\no.",
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + quoted + b"\ntR.",
        "numpy's _reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cposix\nsystem\n(I0\ntVb\ntR(V"
        + quoted
        + b"\nto.",
        "by way of codecs": b"c_codecs\nencode\n(cposix\nsystem\n(V" + quoted + b"\ntRVlatin1\ntR.",
        "persistent": b"Pposix.system\n.",
        "extension": b"\x82\x01.",
    }


def pickles(mark: Path, every: bool) -> Iterator[tuple[str, bytes]]:
    for name in attacks(mark):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1) if every else (2,):
            with contextlib.suppress(TypeError):  # what an old protocol has no opcode for
                yield f"{name}, protocol {protocol}", pickle.dumps(attacks(mark)[name], protocol=protocol)
    for name, content in legacy(f"touch '{mark}'").items():
        yield name, content


def torch_files(mark: Path, every: bool) -> Iterator[tuple[str, bytes]]:
    """What torch.save writes, today and before 1.6, and a bare pickle."""
    for name in list(attacks(mark))[:: 1 if every else 4]:
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(attacks(mark)[name], file, _use_new_zipfile_serialization=zipped)
            yield f"{name}, {'zip' if zipped else 'legacy'}", file.getvalue()
        yield f"{name}, bare", pickle.dumps(attacks(mark)[name])


def numpy_files(mark: Path, every: bool) -> Iterator[tuple[str, bytes]]:
    """npy files whose array is a pickle, and bare pickles, which numpy.load takes as well."""
    for name in list(attacks(mark))[:: 1 if every else 4]:
        array = np.empty(1, object)
        array[0] = attacks(mark)[name]
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        yield f"{name}, npy", file.getvalue()
        yield f"{name}, bare", pickle.dumps(attacks(mark)[name])


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "the code ran"


@contextlib.contextmanager
def refused(tally, mark: Path, lost: list[str], name: str, *errors: type[Exception]) -> Iterator[None]:
    """Around one case: one of the errors is raised, and the code has not run."""
    try:
        with tally:
            with pytest.raises(errors or UserError):
                yield
            assert not mark.exists()
    except (Exception, pytest.fail.Exception) as error:
        lost.append(f"{name}: {type(error).__name__}: {error}")
        mark.unlink(missing_ok=True)


def test_the_attacks_work_on_an_ordinary_loader(mark):
    tame = {"persistent", "extension", "by way of codecs", "numpy's _reconstruct", "getattr"}  # need what is refused
    for name, content in pickles(mark, every=False):
        with contextlib.suppress(Exception):
            pickle.loads(content)
        assert mark.exists() or name.split(",")[0] in tame, name
        mark.unlink(missing_ok=True)
    for _, content in torch_files(mark, every=False):
        with contextlib.suppress(Exception):
            torch.load(io.BytesIO(content), weights_only=False)
        mark.unlink(missing_ok=True)


@pytest.mark.fault(FAULT)
def test_cifars_pickles(tmp_path, mark, tally):
    folder, lost = fakes.cifar100_pickles(tmp_path), []
    for name, content in pickles(mark, tally.every):
        for file in ("meta", "train", "test") if tally.every else ("train",):
            sound = (folder / file).read_bytes()
            (folder / file).write_bytes(content)
            with refused(tally, mark, lost, f"{file}: {name}"):
                cifar100.read(folder)
            (folder / file).write_bytes(sound)
    assert not lost


@pytest.mark.fault(FAULT)
def test_damaged_cifar_pickles_are_refused_or_read_but_never_anything_else(tmp_path, tally):
    folder, lost, draw = fakes.cifar100_pickles(tmp_path), [], random.Random(0)
    sound = {file: (folder / file).read_bytes() for file in ("meta", "train", "test")}
    for number in range(tally.cases(MUTATED, 10)):
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


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """(settings, prepared dataset) of the digits."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    _, settings = load_settings("digits", None, ("width=4", "schedule.epochs=1"))
    return settings, prepare_data("digits", settings.data, tmp_path / "data")


def run_of(digits, tmp_path: Path, method: str) -> tuple:
    settings, dataset = digits
    spec = make_spec("digits", dataset, "demo", settings, "resnet10", method, seed=0)
    folder = RunFolder.of(spec, tmp_path / "runs")
    folder.create(spec)
    return spec, folder


@pytest.mark.fault(FAULT)
def test_prepared_arrays(digits, tmp_path, mark, tally):
    folder, lost = tmp_path / "data" / "prepared" / "digits", []
    for name, content in numpy_files(mark, tally.every):
        for file in ("train/labels.npy", "test/sizes.npy"):
            sound = (folder / file).read_bytes()
            (folder / file).write_bytes(content)
            with refused(tally, mark, lost, f"{file}: {name}"):
                open_dataset(folder)
            (folder / file).write_bytes(sound)
    assert not lost


@pytest.mark.fault(FAULT)
def test_predictions(tmp_path, mark, tally):
    path, lost = tmp_path / "predictions.npz", []
    for name, content in numpy_files(mark, tally.every):
        errors = (OSError, ValueError, KeyError, zipfile.BadZipFile)  # what their callers expect
        for arrays in (("training_logits", "training_labels"), ("logits", "features", "labels")):
            np.savez(path, logits=np.eye(2), features=np.eye(2), labels=np.arange(2))
            with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings(action="ignore"):
                for array in arrays:  # the later of two members of a name counts
                    archive.writestr(f"{array}.npy", content)
            with refused(tally, mark, lost, f"{name} in {arrays[0]}", *errors):
                load_predictions(path)
        with tally:
            assert load_cached(path) is None
            assert not mark.exists()
        path.write_bytes(content)
        with refused(tally, mark, lost, f"{name}, not an npz", *errors):
            load_predictions(path)
    assert not lost


@pytest.mark.fault(FAULT)
def test_a_teachers_weights(digits, tmp_path, mark, tally):
    spec, folder = run_of(digits, tmp_path, "kd")
    teacher = RunFolder.of(spec.teacher, tmp_path / "runs")
    teacher.create(spec.teacher)
    teacher.write_state(DONE, epoch=1)
    lost = []
    for name, content in torch_files(mark, tally.every):
        teacher.weights.write_bytes(content)
        with refused(tally, mark, lost, name):
            build_trainer(spec, folder, torch.device("cpu"), "fp32")
    assert not lost


@pytest.mark.fault(FAULT)
def test_a_checkpoint(digits, tmp_path, mark, tally):
    """It is refused, or passed over: what matters here is that its code does not run."""
    spec, folder = run_of(digits, tmp_path, "cross-entropy")
    lost = []
    for name, content in torch_files(mark, tally.every):
        for path in {folder.checkpoint, *folder.path.glob("checkpoint*")}:
            path.write_bytes(content)
        try:
            with tally:
                with contextlib.suppress(UserError):
                    trainer = build_trainer(spec, folder, torch.device("cpu"), "fp32")
                    trainer.run(on_epoch=lambda *_: None, on_step=lambda *_: None, should_stop=lambda: False)
                assert not mark.exists()
        except Exception as error:
            lost.append(f"{name}: {type(error).__name__}: {error}")
    assert not lost


@pytest.mark.fault(FAULT)
def test_yaml_tags(tmp_path, mark, tally):
    path, lost = tmp_path / "recipe.yaml", []
    for tag in (
        f"!!python/object/apply:os.system [\"touch '{mark}'\"]",
        f"!!python/object/apply:subprocess.check_call [[touch, '{mark}']]",
        f"!!python/object/new:io.FileIO ['{mark}', w]",
        f"!!python/object/apply:eval [\"open('{mark}', 'w')\"]",
        "!!python/name:os.system",
        "!!python/module:os",
    ):
        path.write_text(f"data: {{reader: {tag}}}\n")
        with refused(tally, mark, lost, tag):
            read_yaml(path)
        with refused(tally, mark, lost, f"SET {tag}"):
            load_settings("digits", None, (f"width={tag}",))
    assert not lost


@pytest.mark.fault(FAULT)
def test_the_command_that_prepares(tmp_path, mark, tally):
    """A folder of CIFAR-100's in the hands of the real command."""
    place = Place(tmp_path)
    attack = pickle.dumps(attacks(mark)["os.system"], protocol=2)
    folder = fakes.cifar100_pickles(tmp_path / "data")
    (folder / "train").write_bytes(attack)
    with tally:
        status, _, errors = place.run("experiments data", "cifar100")
        assert (status, errors.count("\n"), mark.exists()) == (2, 1, False)
        assert "it asks for posix.system" in errors


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_the_commands_that_train(tmp_path, mark, tally):
    """Prepared arrays and a checkpoint."""
    place = Place(tmp_path)
    attack = pickle.dumps(attacks(mark)["os.system"], protocol=2)
    assert place.run("experiments data", "digits")[0] == 0
    labels = tmp_path / "data" / "prepared" / "digits" / "train" / "labels.npy"
    sound = labels.read_bytes()
    labels.write_bytes(attack)
    one = ("experiments train", "--dataset", "digits", "--method", "cross-entropy", "--set", "width=4")
    one += ("--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]")
    with tally:
        status, _, errors = place.run(*one)
        assert (status, errors.count("\n"), mark.exists()) == (2, 1, False)
    labels.write_bytes(sound)
    assert place.run(*one, "--launcher", "print")[0] == 0
    (run,) = place.folders()
    file = io.BytesIO()
    torch.save(attacks(mark)["os.system"], file)
    run.checkpoint.write_bytes(file.getvalue())
    with tally:
        place.run("experiments worker", str(run.path))
        assert not mark.exists()


UNSAFE = {
    "pickle.load",
    "pickle.loads",
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "marshal.loads",
}
UNSAFE |= {"joblib.load", "shelve.open", "pandas.read_pickle", "pd.read_pickle", "os.system", "marshal.load"}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}


# Runs the released code from the clone that a user names with REFERENCE: that code is what it is there to run.
MEANT_TO_RUN_CODE = {("experiments/bench/released.py", "exec")}


def test_nothing_in_the_sources_can_load_code():
    """Every file that is read is read by a loader that makes data only, and says so."""
    found, loads = [], 0
    for package in ("cskd", "experiments", "analysis"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
                meant = (path.relative_to(ROOT).as_posix(), name) in MEANT_TO_RUN_CODE
                if (name in UNSAFE and not meant) or given.get("shell"):
                    found.append(f"{path}:{node.lineno}: {name}")
                if name in SAFE:
                    loads += 1
                    option, value = SAFE[name]
                    if given.get(option) is not value:
                        found.append(f"{path}:{node.lineno}: {name} without {option}={value}")
    assert not found
    assert loads >= 4
