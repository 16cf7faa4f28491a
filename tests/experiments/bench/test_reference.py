"""The part reference, with a stand-in for the released code."""

import csv
import textwrap

import pytest

from cskd.utils.errors import UserError
from experiments.bench import reference, released

TRAIN = """
    import argparse
    import models
    from datasets import load_dataset
    from utils import progress_bar, set_logging_defaults

    parser = argparse.ArgumentParser()
    for name in ("dataset", "model", "dataroot", "saveroot"):
        parser.add_argument(f"--{name}")
    for name in ("temp", "lamda"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--cls", action="store_true")
    args = parser.parse_args()
    assert (args.temp, args.lamda) == ((4.0, 1.0) if args.cls else (None, None))
    loader = load_dataset(args.dataset, args.dataroot, batch_size=args.batch_size)
    net = models.load_model(args.model)
    set_logging_defaults(args.saveroot, args)
    print("this line is not an answer")

    def train(epoch):
        for number, (inputs, targets) in enumerate(loader):
            assert len(inputs) == args.batch_size
            net(inputs.flatten(1)).sum().backward()
            progress_bar(number, len(loader), "a step")

    for epoch in range(args.epoch):
        train(epoch)
"""
DATASETS = """
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    def load_dataset(name, root, batch_size):
        images = datasets.CIFAR100(root, train=True, download=True, transform=transforms.ToTensor())
        assert len(images.targets) == len(images) and max(images.targets) == 19
        return DataLoader(images, batch_size=batch_size)
"""
MODELS = """
    import torch

    def load_model(name):
        assert name == "CIFAR_ResNet18"
        return torch.nn.Linear(3 * 32 * 32, 20)
"""
UTILS = """
    raise RuntimeError("the original asks a terminal for its width")
"""
COMMAND = ("experiments bench", "--parts", "reference", "--set", "batch_size=4", "--turns", "1", "--steps", "1")


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    for name, source in {"train": TRAIN, "datasets": DATASETS, "models": MODELS, "utils": UTILS}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return folder


def test_stopwatch_measures_the_counted_steps_only(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("experiments.bench.released.time.perf_counter", lambda: clock[0])
    stopwatch = released.Stopwatch(steps=3)
    for turn in range(2):
        with pytest.raises(released.TurnEnded):
            for step in range(100):
                clock[0] += 50 if step < released.AHEAD else 7 + turn
                stopwatch(step, 100, "Loss: 1.000")
        assert step == released.AHEAD + 2
        assert stopwatch.seconds == 7 + turn


def test_reference_compares_with_the_released_code(call, clone, tmp_path):
    status, output, errors = call(*COMMAND, "--reference", str(clone))
    assert (status, errors) == (0, "")
    with (tmp_path / "results" / "bench" / "reference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["cross-entropy", "cs-kd"]
    for row in rows:
        assert (row["dataset"], row["architecture"], row["batch_size"]) == ("cifar100", "resnet18", "4")
        ratio = float(row["seconds_per_step_released"]) / float(row["seconds_per_step"])
        assert float(row["ratio"]) == pytest.approx(ratio, abs=0.01)
        assert row["released_commit"] == "unknown"
    assert "released code" in output
    assert not list(clone.rglob("__pycache__"))


def test_failing_released_code_raises_one_line_error(clone):
    (clone / "models.py").write_text("raise ValueError('no such network')")
    cell = reference.reference_cell(("batch_size=4",))
    message = rf"the released code in {clone} ended with status 1 \(ValueError: no such network\)"
    with (
        pytest.raises(UserError, match=message) as caught,
        reference.released_code(reference.find_clone(str(clone)), cell, "cs-kd", counted=1),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "is_clone", "message"),
    [
        ("width=64", False, "is not a clone of the released code (it has no train)"),
        ("width=8", True, "the released code has a resnet18 of width 64"),
    ],
)
def test_wrong_clone_or_network_is_one_line(call, clone, tmp_path, override, is_clone, message):
    status, output, errors = call(*COMMAND, "--set", override, "--reference", str(clone if is_clone else tmp_path))
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
