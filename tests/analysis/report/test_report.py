"""The report of made-up runs: its content, reproducibility, and what a real browser shows."""

import io
import re
from pathlib import Path

import browser
import pytest

from analysis.claims.claims import load_claims
from analysis.commands import report
from analysis.figures import embedding
from analysis.report import report as pages


def write(uri, folder, *arguments) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DATA_DIR", str(folder))
        patch.setattr("sys.stdout", io.StringIO())
        patch.setattr(embedding, "embed", lambda features: features[:, :2])  # t-SNE takes seconds
        patch.setattr(pages, "load_claims", lambda: load_claims()[:3])  # and so do the figures of all claims
        assert report.main(["--results-dir", str(folder), *arguments]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(store_uri, tmp_path_factory):
    return write(store_uri, tmp_path_factory.mktemp("results"), "--experiment", "table1", "table1-mini")


def test_report_has_a_part_for_each_pool_and_names_doubtful_runs(page):
    text = page.read_text()
    for heading in ("Verdicts on the claims", "Effects", "The paper&#39;s tables", "Every metric", "Runs and settings"):
        assert text.count(f">{heading}</h3>") == 2, heading
    assert text.count("Ours against the paper&#39;s numbers</h3>") == 1  # mini is not comparable
    assert text.count("#/experiments/") and "viewStateShareKey=cells" in text  # links to MLflow
    notes = text.split('<section id="notes">')[1]
    for note in (
        "mini, 60 epochs: dogs/resnet10/cs-kd, seed 0: trained with uncommitted changes; used.",
        "mini, 60 epochs: dogs/resnet10/cs-kd/seed0 has no predictions.npz: not evaluated.",
        "mini, 60 epochs: dogs/resnet10/cs-kd/seed1 is failed (NaN in &lt;img",
        "paper, 200 epochs: curves, cifar100, resnet18: cifar100/resnet18/cs-kd/seed0 has no history",
    ):
        assert note in notes
    names = {path.name for path in (page.parent / "report").glob("*/*")}
    tables = ("verdicts", "claims", "table1", "against_paper", "calibration", "temperature", "measures", "settings")
    assert {f"{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")} <= names
    figures = ("figure1b", "figure2", "figure3", "figure5", "curves", "calibration")
    assert {f"{name}-cifar100-resnet10.{ending}" for name in figures for ending in ("png", "pdf")} <= names


def test_report_of_one_experiment_has_identical_files(page, store_uri, tmp_path):
    text = write(store_uri, tmp_path, "--experiment", "table1").read_text()
    assert "mini, 60 epochs" not in text
    assert "Only of table1; other experiments may be tracked." in text
    assert "<li>cub200/resnet18/cross-entropy, seed 0: trained with" in text  # one pool: without its name
    files = [path for path in (tmp_path / "report" / "paper").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".png", ".pdf"}
    for path in files:
        assert path.read_bytes() == (page.parent / path.relative_to(tmp_path)).read_bytes(), path


STATE = """{
  drawings: Array.from(document.querySelectorAll(".drawing"), (drawing) => {
    const svg = drawing.firstElementChild, box = drawing.getBoundingClientRect(), text = svg.querySelector("text");
    return { alt: drawing.getAttribute("aria-label").length, inside: box.left >= 0 && box.right <= innerWidth,
      scale: svg.getBoundingClientRect().width / svg.viewBox.baseVal.width, color: getComputedStyle(text).fill };
  }),
  rows: Array.from(document.querySelectorAll("#answer tbody tr"), (row) =>
    Array.from(row.cells).sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)[0].className),
  problems, title: document.title, width: innerWidth, scrollWidth: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:")),
  ink: getComputedStyle(document.body).color, background: getComputedStyle(document.body).backgroundColor,
  broken: Array.from(document.querySelectorAll("nav a, .contents a"), (link) => link.getAttribute("href"))
    .filter((target) => !document.querySelector(target)),
  sorted: (() => {
    const buttons = Array.from(document.querySelectorAll("#mini-runs ~ .tables table.sortable th button"));
    const names = buttons.map((button) => button.textContent), table = buttons[0].closest("table");
    const column = (name) => Array.from(table.tBodies[0].rows, (row) => row.cells[names.indexOf(name)].textContent);
    const click = (name) => { buttons[names.indexOf(name)].click(); return column(name); };
    return { before: column("run"), up: click("last Top-1 error (%)"), down: click("last Top-1 error (%)"),
      runs: click("run"), mark: buttons[0].parentElement.getAttribute("aria-sort") };
  })(),
}"""


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_browser_shows_the_page_without_errors_and_sorts_its_tables(page, tmp_path, width, dark):
    state, console = browser.evaluate(page, STATE, tmp_path, width=width, dark=dark)
    assert (console, state["problems"], state["fetched"], state["broken"]) == ([], [], [], [])
    assert len(state["drawings"]) > 5
    for drawing in state["drawings"]:
        assert (drawing["alt"] > 10, drawing["inside"], drawing["color"]) == (True, True, state["ink"])
        assert drawing["scale"] > 1  # CSS pixels per point: texts of 8 points stay legible
    if width < 640:  # stacked rows begin with the verdict
        assert set(state["rows"]) == {"verdict"}
    assert state["title"].startswith("Does CS-KD hold?")
    assert (state["width"], state["scrollWidth"] <= width) == (width, True)
    assert state["background"] == ("rgb(23, 23, 26)" if dark else "rgb(255, 255, 255)")
    rows = state["sorted"]
    errors = [float(text) for text in rows["up"] if re.match(r"\d", text)]
    assert (len(errors), errors) == (6, sorted(errors))
    assert set(rows["up"][6:]) == {"\N{EN DASH}"}  # a failed run, and one without an error
    assert rows["down"] == rows["up"][::-1]
    assert (rows["runs"], rows["mark"]) == (sorted(rows["before"]), "ascending")
