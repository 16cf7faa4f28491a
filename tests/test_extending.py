"""docs/extending.md, followed word for word."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders import Grid, empty_store, make_pool
from PIL import Image

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import HOLDS, judge
from cskd.batch import Batch
from cskd.methods import METHODS, ForwardCache, build_method
from cskd.models import build, build_model
from experiments.config import recipe
from experiments.config.datasets import prepare_data
from experiments.config.recipe import load_settings
from experiments.launch.backends import base

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text()


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


def test_the_claim_is_judged(logit_penalty, tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(block("yaml", 1))
    errors = {"cross-entropy": {0: 24.0, 1: 24.2, 2: 24.1}, "logit-penalty": {0: 22.0, 1: 22.3, 2: 22.2}}
    for profile in ("paper", "mini"):
        pool = make_pool({f"cifar100/resnet18/{method}": values for method, values in errors.items()}, profile)
        [verdict] = judge(pool, load_claims(path), {})
        assert (verdict.claim.where, verdict.dataset, verdict.outcome) == ("ours", "cifar100", HOLDS)


def test_the_metric_is_a_fraction_and_needs_two_classes():
    names: dict = {}
    exec(compile(block("python", 2), "gap.py", "exec"), names)
    logits = np.log([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]])
    assert names["confidence_gap"](logits, [0, 1]) == pytest.approx((0.5 + 0.1) / 2)
    with pytest.raises(ValueError, match="two classes"):
        names["confidence_gap"](logits[:, :1], [0, 0])


METRICS = f"""
    {block("python", 3).strip()},
    Metric("largest_logit", "largest", "Largest logit", "", lambda logits, labels: float(logits.max()), when=STORED),
"""
CLAIM = """
- {id: mine, claim: Mine., where: ours, metric: %s, method: cs-kd, against: cross-entropy, better: lower,
   datasets: [flowers], architectures: [resnet10]}
"""
COMMANDS = """
from analysis.commands import measured, readme, report, tables
from analysis.report import report as page
page.pool_figures = lambda *_: ({}, [])  # drawing takes seconds
measured.main([])
readme.main(["--documents", "page.md"])
tables.main(["--show", "gap", "--experiment", "table1-mini"])
report.main([])
"""


def test_a_metric_is_one_entry_and_a_claim_another(tmp_path):
    """The files of this clone were measured before the metric was registered."""
    for package in ("cskd", "analysis"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    registry, claims = tmp_path / "cskd/evaluate/metrics.py", tmp_path / "analysis/claims/claims.yaml"
    registry.with_name("gap.py").write_text(block("python", 2))
    added = f"\nfrom cskd.evaluate.gap import confidence_gap\n\nMETRICS = ({METRICS}"
    registry.write_text(registry.read_text().replace("\nMETRICS = (", added, 1))
    plots = tmp_path / "cskd/plots.py"
    plots.write_text(plots.read_text().replace("PDF_FONT_TYPE = 42", "PDF_FONT_TYPE = 3"))  # 42 takes seconds
    claims.write_text("\n".join(CLAIM.replace("mine", name) % name for name in ("confidence_gap", "largest_logit")))
    grid = Grid("table1-mini", "mini")
    for method, values in (("cross-entropy", (81, 82, 84)), ("cs-kd", (71, 73, 74))):
        cell = grid.cell("flowers", method, architecture="resnet10")
        for seed, value in enumerate(values):
            grid.trained(cell, seed, 50 + seed, 5).metrics.append(("test/confidence_gap", value, 1))
    grid.log(empty_store(tmp_path), tmp_path)
    file = tmp_path / "results" / "measured" / "runs-mini.csv"
    file.parent.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "measured" / "runs-mini-custom-7e6741.csv", file)
    (tmp_path / "page.md").write_text("<!-- begin generated: results mini -->\n<!-- end generated -->\n")
    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(file).set_index("dataset")
    assert rows.last_confidence_gap["flowers"].tolist() == [81, 82, 84, 71, 73, 74]
    assert rows.last_confidence_gap.drop("flowers").isna().all()
    assert rows.largest_logit["flowers"].notna().all()
    verdicts = pd.read_csv(file.with_name("verdicts-mini.csv")).query("dataset == 'flowers'").set_index("id").outcome
    assert (verdicts["confidence_gap"], verdicts["largest_logit"]) == ("holds", "holds")
    assert "Confidence gap (%), table1-mini" in done.stdout
    assert "**flowers, resnet10**" in (tmp_path / "page.md").read_text()
    report = (tmp_path / "results" / "report.html").read_text()
    assert "Effects with intervals: claims-confidence_gap" in report and "Largest logit" in report


def test_the_network_of_the_text_can_be_selected(monkeypatch):
    names = vars(build) | {"ARCHITECTURES": {}}
    exec(compile(block("python", 4), "plain.py", "exec"), names)
    exec(compile(block("python", 5), "build.py", "exec"), names)
    monkeypatch.setitem(build.ARCHITECTURES, "plain", names["ARCHITECTURES"]["plain"])
    for size, width in ((32, 4), (96, 64)):
        byot = build_method("byot")
        model = build_model("plain", 5, size, width=width, build_auxiliary=byot.build_auxiliary)
        images = torch.randn(2, 3, size, size)
        assert model(images).shape == (2, 5)
        features, logits = model.auxiliary(model.backbone.stage_maps(images))[0]
        assert (features.shape[1], logits.shape[1]) == (model.backbone.feature_size, 5)


def test_the_exit_statuses_are_those_of_the_worker():
    documented = re.findall(r"^\| (\d+) `(EXIT_\w+)`", TEXT, re.MULTILINE)
    assert documented == [(str(value), name) for name, value in vars(base).items() if name.startswith("EXIT_")]
