"""The part reference, with a stand-in for the released code."""

import csv
import textwrap

import pytest

from experiments.bench import clone as clones
from experiments.bench import reference, released

TRAIN = """
    import argparse
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    from utils import progress_bar

    parser = argparse.ArgumentParser()
    parser.add_argument("--temp", type=float)
    parser.add_argument("--lamda", type=float)
    parser.add_argument("--batch-size", type=int)
    args, others = parser.parse_known_args()
    assert "--cls" in others and (args.temp, args.lamda) == (4.0, 1.0)
    images = datasets.CIFAR100("", transform=transforms.ToTensor())
    assert len(images.targets) == len(images) and max(images.targets) == 19
    loader = DataLoader(images, batch_size=args.batch_size)
    print("this line is not an answer")

    def train(epoch):
        for number, (inputs, targets) in enumerate(loader):
            assert len(inputs) == args.batch_size
            progress_bar(number, len(loader), "a step")
"""
COMMAND = ("experiments bench", "--parts", "reference", "--set", "batch_size=4", "--turns", "1", "--steps", "1")


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    for name, source in {"train": TRAIN, "datasets": "", "models": ""}.items():
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
        assert stopwatch.seconds == 7 + turn


def test_reference_compares_with_the_released_code(call, clone, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "COMPARED", ("cs-kd",))
    status, output, errors = call(*COMMAND, "--reference", str(clone))
    assert (status, errors, "released code" in output) == (0, "", True)
    with (tmp_path / "results" / "bench" / "reference.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["dataset"], row["method"], row["released_commit"]) == ("cifar100", "cs-kd", "unknown")
    ratio = float(row["seconds_per_step_released"]) / float(row["seconds_per_step"])
    assert float(row["ratio"]) == pytest.approx(ratio, abs=0.01)
    assert not list(clone.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "is not a clone of the released code (it has no train)"),
        ("raise ValueError('no network')", "ended with status 1 (ValueError: no network)"),
    ],
)
def test_wrong_or_failing_clone_is_one_line(call, clone, monkeypatch, train, message):
    monkeypatch.setattr(clones, "SCRIPT", clone / "train.py")  # without the imports of the real script
    (clone / "train.py").unlink() if train is None else (clone / "train.py").write_text(train)
    status, output, errors = call(*COMMAND, "--reference", str(clone))
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors
