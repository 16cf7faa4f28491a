"""docs/library.md and the README's example, run as they stand, and the loss as a module."""

import builtins
import copy
import itertools
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stepping import batch_of, float_images, model_for, step_loss
from torch import nn

import cskd
from cskd import ClassWiseKL, CSKDLoss, PairedDataset, class_wise_kl
from cskd.losses import cross_entropy
from cskd.methods import build_method

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(section: str) -> list[str]:
    """Return the Python code of a section of docs/library.md."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


SETUP, LOOP = blocks("A plain loop")
COLLECT, METRICS = blocks("Metrics and temperature scaling")
[EXAMPLE] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(*code: str, **names) -> dict:
    for number, block in enumerate(code):
        exec(compile(block, f"block {number}", "exec"), names)
    return names


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """The current directory, with two classes of two images in flowers/train and flowers/test."""
    random = np.random.default_rng(0)
    for part, name in itertools.product(("train", "test"), ("rose", "tulip")):
        folder = tmp_path / "flowers" / part / name
        folder.mkdir(parents=True)
        for index in range(2):
            Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def recorded(monkeypatch) -> dict[str, list]:
    """The losses of the steps, and the epochs that were set on the dataset."""
    records = {"losses": [], "epochs": []}
    forward, set_epoch = CSKDLoss.forward, PairedDataset.set_epoch

    def recorded_forward(self, model, x, partner, y):
        assert x.shape == partner.shape and model.training
        loss = forward(self, model, x, partner, y)
        records["losses"].append(loss.item())
        return loss

    def recorded_set_epoch(self, epoch):
        set_epoch(self, epoch)
        records["epochs"].append(epoch)

    monkeypatch.setattr(CSKDLoss, "forward", recorded_forward)
    monkeypatch.setattr(PairedDataset, "set_epoch", recorded_set_epoch)
    return records


def assert_trained(recorded: dict[str, list], epochs: int) -> None:
    """One step in each epoch, with the partners of the epoch."""
    assert len(recorded["losses"]) == epochs and np.isfinite(recorded["losses"]).all()
    assert {*recorded["epochs"]} == {*range(epochs)}


def test_readme_example_trains(flowers, recorded):
    names = run(EXAMPLE, range=lambda epochs: builtins.range(min(epochs, 1)))
    assert_trained(recorded, epochs=1)
    assert names["model"].fc.out_features == 2


def test_plain_loop_trains(flowers, recorded):
    run(SETUP, LOOP)
    assert_trained(recorded, epochs=2)


def test_loop_without_another_dataset_trains(flowers):
    assert run(SETUP, *blocks("Without wrapping the dataset"))["loss"].isfinite()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_two_ranks(work: Callable[[], None]) -> None:
    """Call ``work`` in two processes, with the environment of torchrun."""

    def rank(number: int, port: int) -> None:
        torch.set_num_threads(1)
        os.environ.update(RANK=str(number), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        work()

    torch.multiprocessing.start_processes(rank, (free_port(),), nprocs=2, start_method="fork")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that uses a GPU cannot be forked")
def test_two_ranks_share_the_images_and_keep_the_same_weights(flowers):
    def work():
        names = run(SETUP, *blocks("Distributed training"))
        torch.save([names["model"].module.state_dict(), list(names["sampler"])], f"{os.environ['RANK']}.pt")

    start_two_ranks(work)
    (weights, images), (other_weights, other_images) = (torch.load(f"{rank}.pt") for rank in range(2))
    assert sorted(images + other_images) == [*range(4)]
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights if "running" not in name)


def test_lightning_recipe_trains(flowers, recorded):
    pytest.importorskip("lightning")
    run(SETUP, *blocks("Lightning"))
    assert_trained(recorded, epochs=2)


def test_timm_recipe_trains(flowers, recorded):
    pytest.importorskip("timm")
    run(SETUP, *blocks("timm"))
    assert_trained(recorded, epochs=2)


def test_hugging_face_recipe_trains(flowers, recorded):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    run(SETUP, *blocks("Hugging Face Trainer"))
    assert_trained(recorded, epochs=2)


def test_logits_of_the_test_images_are_collected(flowers):
    names = run(SETUP, COLLECT)
    assert names["logits"].shape == (4, 2) and names["labels"].tolist() == [0, 0, 1, 1]
    assert 0 <= cskd.top_k_error(names["logits"], names["labels"]) <= 1


def test_metrics_are_the_same_for_arrays_and_for_tensors_with_gradient():
    names = run(METRICS)
    logits, labels = torch.tensor(names["logits"], requires_grad=True), torch.tensor(names["labels"])
    metrics = {name: names[name] for name in cskd.__all__ if name.endswith(("error", "likelihood", "score", "_1"))}
    assert len(metrics) == 8
    for name, metric in metrics.items():
        value = metric(names["logits"], names["labels"])
        assert isinstance(value, float) and value > 0, name
        assert metric(logits, labels) == value, name
    assert cskd.fit_temperature(logits, labels) == cskd.fit_temperature(names["logits"], names["labels"])
    assert 0 < names["scaled_ece"] < 0.1
    assert names["bins"].count.sum() == 1000


@pytest.mark.parametrize("code", [EXAMPLE, *re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)])
def test_recipes_change_at_most_15_lines(code):
    assert code.count("# CS-KD") <= 15


def test_page_has_every_public_name():
    assert [name for name in cskd.__all__ if name not in PAGE and name != "NUMERICS_VERSION"] == []
    assert {*cskd.__all__} <= {*dir(cskd)}
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = cskd.missing


def test_loss_is_the_suites_with_gradients_and_batch_statistics():
    method = build_method("cs-kd", {"temperature": 4, "lambda_cls": 3})
    batch, model = batch_of(method), model_for(method)
    other = copy.deepcopy(model)
    expected = step_loss(method, model, batch)
    x, partner = (float_images(batch.views[view]) for view in ("x", "partner"))
    loss = CSKDLoss(temperature=4, lambda_cls=3)(other, x, partner, batch.labels)
    expected.backward()
    loss.backward()
    assert torch.equal(loss, expected)
    for parameter, its_twin in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter.grad, its_twin.grad)
    for buffer, its_twin in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(buffer, its_twin)


class WithLogits(nn.Module):
    """A network that returns an object with logits, as those of transformers do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x):
        return type("Output", (), {"logits": self.model(x)})


@pytest.mark.parametrize("wrap", [lambda model: model, WithLogits])
def test_loss_is_cross_entropy_plus_weighted_kl_and_the_partner_has_no_gradient(wrap):
    model = nn.Linear(4, 3)
    x, partner = torch.randn(2, 5, 4).requires_grad_().unbind()
    y = torch.randn(5, 3).softmax(1)
    loss = CSKDLoss(temperature=2, lambda_cls=0.5)(wrap(model), x, partner, y)
    expected = cross_entropy(model(x), y) + 0.5 * class_wise_kl(model(x), model(partner).detach(), 2)
    torch.testing.assert_close(loss, expected)
    gradient, none = torch.autograd.grad(loss, (x, partner), allow_unused=True)
    assert gradient.abs().sum() > 0 and none is None
    assert torch.equal(ClassWiseKL(2)(model(x), model(partner)), class_wise_kl(model(x), model(partner), 2))
