"""docs/extending.md, followed word for word."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cskd.batch import Batch
from cskd.methods import METHODS, ForwardCache, build_method
from cskd.models import build_model
from experiments.config import recipe
from experiments.config.datasets import prepare_data
from experiments.config.recipe import load_settings

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "extending.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[number]


def test_the_recipe_makes_a_folder_of_images_a_dataset(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("rose", "tulip"):
            folder = tmp_path / "data" / "flowers" / split / name
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = random.integers(0, 256, size=(40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    (tmp_path / "flowers.yaml").write_text(block("yaml"))
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)
    profile, settings = load_settings("flowers")
    dataset = prepare_data("flowers", settings.data, tmp_path / "data")
    assert profile == "paper"
    assert dataset.classes == ("rose", "tulip")
    assert (len(dataset.train), len(dataset.test)) == (6, 6)
    assert (settings.schedule.epochs, settings.schedule.lr, settings.schedule.milestones) == (200, 0.1, (100, 150))
    _, small = load_settings("flowers", "mini")
    assert small.resolve_architecture("resnet18") == "resnet10"
    assert (small.inputs.image_size, small.schedule.epochs) == (48, 20)


@pytest.fixture
def logit_penalty(monkeypatch):
    """The method of the text, registered by the line of the text."""
    names: dict = {"__name__": "cskd.methods.logit_penalty"}
    exec(compile(block("python"), "logit_penalty.py", "exec"), names)
    entry = eval(f"{{{block('python', 1)}}}", names)
    for name, method in entry.items():
        monkeypatch.setitem(METHODS, name, method)


def test_the_method_is_its_formula_alone_and_in_a_sum(logit_penalty):
    method = build_method("logit-penalty", {"beta": 0.5})
    assert dataclasses.asdict(method) == {"beta": 0.5}
    torch.manual_seed(0)
    model = build_model("resnet10", 3, 32, width=4).eval()
    labels = torch.arange(6) % 3
    batch = Batch({"x": torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)}, labels, labels, 3)
    cache = ForwardCache(model, batch, lambda images: images.float() / 255)
    loss = sum(term.weight * term.loss(cache) for term in method.terms())
    logits = model(batch.views["x"].float() / 255)
    expected = torch.nn.functional.cross_entropy(logits, labels) + 0.5 * (logits**2).mean()
    torch.testing.assert_close(loss, expected)
    both = build_method("cs-kd+logit-penalty")
    assert [term.name for term in both.terms()] == ["cross_entropy", "class_wise_kl", "squared_logits"]
