"""What training costs: every method beside cross-entropy, ours beside others, on the recipe's kind of images."""

import csv
import textwrap
from pathlib import Path

import pytest
import torch

from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.utils.errors import UserError
from experiments.bench import reference, released
from experiments.bench.arithmetic import MatrixProduct, flops_of
from experiments.bench.images import made_up
from experiments.bench.ours import Stopwatch, TimedTrainer
from experiments.config.recipe import load_settings


@pytest.fixture
def compiling(monkeypatch):
    """torch.compile with everything but the compiler, which would take its time."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, options, **how: compile_(step, backend="eager", **how))
    yield
    torch.compiler.reset()


QUICK = ("--turns", "1", "--steps", "1")


def rows_of(folder: Path, name: str) -> dict[str, dict[str, str]]:
    (path,) = folder.rglob(f"{name}.csv")
    with path.open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("name", "size"),
    [("cifar100", (32, 32)), ("tinyimagenet", (64, 64)), ("cub200", (375, 500)), ("digits", (8, 8))],
)
def test_made_up_images_are_of_the_recipes_kind_and_fill_the_batches(name, size):
    _, settings = load_settings(name)
    dataset = made_up(name, settings, batches=2)
    assert len(dataset.train) == 2 * settings.batch_size
    assert dataset.train.image(3).shape == (*size, 3)
    assert set(dataset.train.labels) == set(range(len(dataset.classes)))


def test_every_method_is_measured_against_cross_entropy(call, tmp_path):
    status, output, errors = call("experiments bench", "--parts", "steps", "--datasets", "digits", *QUICK)
    assert (status, errors) == (0, "")
    rows = rows_of(tmp_path, "steps")
    assert list(rows) == ["cross-entropy", *(n for n in [*METHODS, *PAPER_COMPOSITES] if n != "cross-entropy")]
    assert float(rows["cross-entropy"]["ratio"]) == 1
    for row in rows.values():
        seconds = float(row["seconds_per_step"])
        assert float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert float(row["images_per_second"]) == pytest.approx(50 / seconds, rel=1e-3)
        share = int(row["flops_per_step"]) / seconds / float(row["matmul_flops_per_second"])
        assert float(row["matmul_share"]) == pytest.approx(share, abs=2e-4)
        assert 0 < float(row["input_share"]) < 1
        assert row["compiled"] == "False"
        assert row["architecture"] == "resnet10"
        assert row["precision"] in ("bf16", "fp32")
        assert row["method"] in output


def trainer_of(method: str, *overrides: str) -> TimedTrainer:
    profile, settings = load_settings("cifar100", None, ("batch_size=4", *overrides))
    return TimedTrainer(made_up("cifar100", settings, 2), profile, settings, "resnet18", method, uncounted=0, counted=1)


def test_the_arithmetic_of_a_step_is_that_of_the_network():
    """The CIFAR ResNet-18 has 0.557 billion multiply-adds an image of 32 px."""
    once = 2 * 0.557e9 * 4  # a forward pass; the backward pass is two, all but the image's gradient
    plain, cs_kd = (flops_of(trainer_of(method).trainer) for method in ("cross-entropy", "cs-kd"))
    assert plain == pytest.approx(3 * once, rel=0.01)
    assert cs_kd == pytest.approx(4 * once, rel=0.01)  # the partner's pass has no backward


def test_the_arithmetic_is_counted_also_where_the_step_is_compiled(compiling):
    compiled, eager = trainer_of("cs-kd", "compile=true", "width=4"), trainer_of("cs-kd", "width=4")
    assert compiled.measured.compiled
    assert not eager.measured.compiled
    assert flops_of(compiled.trainer) == flops_of(eager.trainer) > 0


def test_as_many_trainers_are_compiled_as_are_measured(compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 1)
    for method in ("cross-entropy", "cs-kd"):
        assert trainer_of(method, "compile=true", "width=4").turn(0) > 0


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_devices_own_rate_is_of_the_steps_precision(precision, dtype, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("experiments.bench.timing.time.perf_counter", lambda: clock[0])
    product = MatrixProduct(torch.device("cpu"), precision)
    assert product.out.dtype == dtype

    def multiply(left, right, out):
        clock[0] += 0.5

    monkeypatch.setattr(torch, "mm", multiply)
    assert product.turn() == 2 * product.size**3 / 0.5


def test_our_pipeline_is_measured_against_the_conventional_one(call, tmp_path):
    parts = ("--parts", "steps", "pipelines")
    arguments = ("--methods", "cs-kd", "--datasets", "digits", "--turns", "3", "--steps", "1", *parts)
    status, output, errors = call("experiments bench", *arguments)
    assert (status, errors) == (0, "")
    assert list(rows_of(tmp_path, "steps")) == ["cross-entropy", "cs-kd"]
    rows = rows_of(tmp_path, "pipelines")
    assert list(rows) == ["cross-entropy", "cs-kd"]
    for row in rows.values():
        assert 0 < float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert float(row["seconds_per_step_torchvision"]) > 0
        assert row["turns"] == "3"
    assert "torchvision" in output
    assert not list(tmp_path.rglob("reference.csv"))


def test_input_is_measured_as_the_device_allows(monkeypatch):
    """On a CPU by itself; on a GPU as what a step is shorter by on a batch that is there."""
    clock = [0.0]
    monkeypatch.setattr("experiments.bench.ours.now", lambda device: clock[0])
    ours = trainer_of("cross-entropy", "width=4")
    loader, step = ours.loader, ours.trainer.step.eager

    class Slow:
        def __len__(self):
            return len(loader)

        def epoch(self, number):
            for batch in loader.epoch(number):
                clock[0] += 2
                yield batch

    def slow_step(batch):
        clock[0] += 5
        return step(batch)

    ours.loader = ours.watch.loader = Slow()
    monkeypatch.setattr(ours.trainer.step, "eager", slow_step)
    assert ours.turn(1) == 7
    assert ours.input_turn(1) == ours.input_alone(1) == 2
    assert ours.same_batch(1) == 5
    ours.device = torch.device("cuda")
    assert ours.input_turn(1) == 2
    assert ours.trainer.loader is ours.watch


class FakeLoader:
    """Batches that say when they were asked for."""

    def __init__(self, clock: list[float]):
        self.clock = clock

    def epoch(self, number: int):
        for batch in range(100):
            self.clock[0] += 10 if batch == 0 else 1  # the first waits for its workers
            yield batch


def test_the_clock_runs_over_the_counted_steps_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("experiments.bench.timing.time.perf_counter", lambda: clock[0])
    watch = Stopwatch(FakeLoader(clock), uncounted=2, counted=3, device=torch.device("cpu"))
    seen = []
    for batch in watch.epoch(0):
        seen.append(batch)
        clock[0] += 100  # the step
    assert seen == [0, 1, 2, 3, 4]
    assert len(watch) == 5
    assert watch.seconds == 101


def test_the_released_codes_clock_runs_over_the_counted_steps_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("experiments.bench.released.time.perf_counter", lambda: clock[0])
    watch = released.Watch(steps=3)
    for turn in range(2):
        with pytest.raises(released.TurnEnded):
            for step in range(100):
                clock[0] += 50 if step < released.AHEAD else 7 + turn
                watch(step, 100, "Loss: 1.000")
        assert step == released.AHEAD + 2
        assert watch.seconds == 7 + turn


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
    print("what is printed is no answer")

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
    raise RuntimeError("theirs asks a terminal for its width")
"""


@pytest.fixture
def clone(tmp_path):
    """A stand-in for the released code, with its interface."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name, source in {"train": TRAIN, "datasets": DATASETS, "models": MODELS, "utils": UTILS}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return folder


REFERENCE = ("--parts", "reference", "--set", "batch_size=4", *QUICK, "--reference")


def test_ours_is_measured_against_the_released_code(call, clone, tmp_path):
    status, output, errors = call("experiments bench", *REFERENCE, str(clone))
    assert (status, errors) == (0, "")
    rows = rows_of(tmp_path, "reference")
    assert list(rows) == ["cross-entropy", "cs-kd"]
    for row in rows.values():
        assert (row["dataset"], row["architecture"], row["batch_size"]) == ("cifar100", "resnet18", "4")
        ratio = float(row["seconds_per_step_released"]) / float(row["seconds_per_step"])
        assert float(row["ratio"]) == pytest.approx(ratio, abs=0.01)
        assert row["released_commit"] == "unknown"
    assert "released code" in output
    assert not list(clone.rglob("__pycache__"))


def test_released_code_that_fails_is_one_line(call, clone):
    (clone / "models.py").write_text("raise ValueError('no such network')")
    status, _, errors = call("experiments bench", *REFERENCE, str(clone))
    assert status == 2
    assert f"the released code in {clone} ended with status 1 (ValueError: no such network)" in errors
    assert errors.count("\n") == 1


def test_released_code_that_is_killed_between_turns_is_one_line(clone):
    _, settings = reference.settings_of_theirs(("batch_size=4",))
    with (
        pytest.raises(UserError, match="ended with status -9"),
        reference.released_code(reference.Clone.at(str(clone)), settings, "cs-kd", steps=1) as theirs,
    ):
        assert theirs.turn(0) > 0
        theirs.process.kill()
        theirs.process.wait()
        theirs.turn(1)


def test_a_wrong_folder_is_said_before_anything_is_measured(call, tmp_path):
    status, output, errors = call("experiments bench", "--datasets", "digits", "--reference", str(tmp_path))
    assert (status, output) == (2, "")
    assert f"{tmp_path} is no clone of the released code (it has no train)" in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--datasets", "digit"], "unknown dataset 'digit'"),
        (["--methods", "adacos+mixup"], "adacos cannot be combined"),
        (["--architectures", "vgg"], "unknown architecture 'vgg'"),
        (["--turns", "0"], "argument --turns: 0 is not a number from 1 to 1,000,000"),
        (["--parts", "step"], "unknown part 'step'"),
        (["--parts", "reference"], "give REFERENCE=<folder>"),
        (["--datasets", "digits", "--architectures", "resnet18"], "profile demo trains resnet10, not resnet18"),
    ],
)
def test_bad_input_is_one_line(call, arguments, message):
    status, _, errors = call("experiments bench", *arguments)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_the_released_network_is_not_compared_with_another(call, clone):
    status, _, errors = call("experiments bench", *REFERENCE, str(clone), "--set", "width=8")
    assert status == 2
    assert "the released code has a resnet18 of width 64" in errors
    assert errors.count("\n") == 1
