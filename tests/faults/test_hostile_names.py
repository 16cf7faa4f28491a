"""Classes and files whose names are HTML, TeX or formulas: every output escapes them."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from place import ROOT, Place

FAULT = "names that are code: HTML, TeX, formulas, paths"
CLASSES = ("<img src=x onerror=alert(1)>", "$\\frac{1}$", "\\input{x}", "a|b _c_ `d`", "=1+1", "%s {} &amp; '\"")
RECIPE = """
data: {reader: image-folder, folder: flowers}
inputs: {image_size: 8, train: pad-crop, padding: 1}
architectures: {resnet18: resnet10}
width: 8
batch_size: 12
precision: fp32
schedule: {epochs: 2, milestones: [1]}
methods: {cs-kd: {temperature: 4, lambda_cls: 1}}
"""


class Tags(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self):
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, attributes))


def injected_elements(text: str) -> list[tuple]:
    """Return the elements with attributes that run code, and images from outside the page."""
    tags = Tags()
    tags.feed(text)
    return [
        (tag, attributes)
        for tag, attributes in tags.elements
        if any(name.startswith("on") for name, _ in attributes)
        or (tag == "img" and not dict(attributes).get("src", "").startswith("data:"))
    ]


def draw_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for image in range(4):
                pixels = random.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)
                pixels[number % 8] = 255
                Image.fromarray(pixels).save(folder / split / name / f"{image} <b onclick=x>.png")


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_names_are_escaped_in_every_output(tally, tmp_path):
    place = Place(tmp_path)
    place.sources = tmp_path / "sources"  # a copy, with a recipe of its own
    for package in ("cskd", "experiments", "analysis"):
        shutil.copytree(ROOT / package, place.sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place.sources / "experiments" / "recipes" / "flowers.yaml").write_text(RECIPE)
    draw_images(tmp_path / "data" / "flowers")
    grid = ("experiments grid", "table1", "--datasets", "flowers", "--seeds", "0", "1")
    for command, *arguments in (("experiments data", "flowers"), grid, ("analysis tables",), ("analysis report",)):
        with tally:
            status, _, errors = place.run(command, *arguments)
            assert (status, errors) == (0, "")
    pages = [path for ending in ("html", "svg", "md") for path in tmp_path.rglob(f"*.{ending}")]
    pages = [path for path in pages if place.sources not in path.parents]
    assert place.folder / "results" / "report.html" in pages
    for path in pages:
        with tally:
            assert injected_elements(path.read_text()) == [], path
    for path in (tmp_path / "results").rglob("*.tex"):
        with tally:
            assert "\\input" not in path.read_text()
            assert "\\frac" not in path.read_text()


def test_injected_elements_are_found():
    for text in ("<p onclick=x>", "<IMG src=x onerror=alert(1)>", "<img src='http://x'>", "<svg><g onload=x>"):
        assert injected_elements(f"<body>{text}</body>")
    assert not injected_elements("<img src='data:image/png;base64,xx'>&lt;img src=x onerror=alert(1)&gt;")
