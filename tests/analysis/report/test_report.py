"""The report of made-up runs: its content, reproducibility, and what a real browser shows."""

import io
import re
from pathlib import Path
from urllib.parse import urlparse

import browser
import numpy as np
import pytest
from builders import Grid, empty_store

from analysis.commands import report
from analysis.load.store import Store
from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.errors import UserError

HOSTILE = "<img src=x onerror=document.title='owned'>"
SETTINGS = {"schedule.epochs": 2, "schedule.milestones": [1], "numerics_version": 1, "data_digest": "none"}


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory):
    """The paper's recipe and mini: two methods, three seeds, and runs with every kind of problem."""
    folder = tmp_path_factory.mktemp("reported")
    uri = empty_store(folder)
    for name, profile in (("table1", "paper"), ("table1-mini", "mini")):
        grid = Grid(name, profile, SETTINGS)
        cells = [grid.cell("cifar100", method) for method in ("cross-entropy", "cs-kd")]
        for seed in range(3):
            for cell, error, ece in zip(cells, (24.5, 22), (15, 5), strict=True):
                run = grid.trained(cell, seed, error + 0.2 * seed**2, ece + seed)
                run.metrics += [("train/loss", 1.0, 0), ("train/loss", 0.5, 1)]
        if profile == "mini":
            grid.trained(grid.cell("dogs", "cross-entropy"), 0, 40, 12, git_dirty="true")
            grid.run(grid.cell("dogs", "cs-kd"), 0, state="failed", reason=f"NaN in {HOSTILE}")
        grid.log(uri, folder, predictions=False)
    for experiment in Store(uri).load():
        for run in experiment.done[experiment.done.dataset == "cifar100"].itertuples():
            save(Path(urlparse(run.artifact_uri).path), run.seed, 4 if run.method == "cross-entropy" else 1.5)
    return uri


def save(folder: Path, seed: int, scale: float) -> None:
    random = np.random.RandomState(seed)
    labels = np.arange(120) % 6
    logits = scale * (random.standard_normal((120, 6)) + 1.5 * np.eye(6)[labels])
    features = np.eye(6)[labels] + random.standard_normal((120, 6))
    classes = ("apple", HOSTILE, "bear $x$", "cat", "dog", "eel")
    tested = Predictions(logits.astype("f4"), features.astype("f4"), labels, np.arange(120), classes)
    folder.mkdir(parents=True)
    training = Predictions(2 * tested.logits, tested.features, labels, np.arange(120), classes)
    save_predictions(folder / "predictions.npz", tested, training)


def write(uri, folder, *arguments) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DATA_DIR", str(folder))
        patch.setattr("sys.stdout", io.StringIO())
        assert report.main(["--results-dir", str(folder), *arguments]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(store_uri, tmp_path_factory):
    return write(store_uri, tmp_path_factory.mktemp("results"))


def test_report_has_a_part_for_each_pool_with_every_chapter(page):
    text = page.read_text()
    for part in ("Profile paper", "Profile mini"):
        assert f"<h2>{part}</h2>" in text
    for heading in ("The verdict", "Effects", "The paper&#39;s tables", "Calibration", "Runs and settings"):
        assert text.count(f">{heading}</h3>") == 2, heading
    assert text.count("Ours against the paper&#39;s numbers</h3>") == 1  # mini is not comparable
    assert "The paper&#39;s recipe: not run" not in text


def test_notes_of_a_chapter_are_listed_once(page):
    tables = page.read_text().split('<h3 id="paper-tables">')[1].split("<h3")[0]
    assert len(re.findall("<li>Bold: ", tables)) == 1
    assert tables.count("<li>R@1 (%): higher is better.</li>") == 1


def test_doubtful_runs_are_named(page):
    notes = page.read_text().split('<section id="notes">')[1]
    for note in (
        "mini: dogs/resnet18/cross-entropy, seed 0: trained with uncommitted changes; used.",
        "mini: dogs/resnet18/cross-entropy/seed0 has no predictions.npz: not evaluated.",
        "mini: dogs/resnet18/cs-kd/seed0 is failed (NaN in &lt;img",
        "mini: curves, dogs, resnet18: dogs/resnet18/cross-entropy/seed0 has no history",
    ):
        assert note in notes
    assert all(line.startswith(("paper: ", "mini: ")) for line in re.findall("<li>(.*?)</li>", notes))


def test_tables_and_figures_are_files_too(page):
    names = {path.name for path in (page.parent / "report" / "paper").iterdir()}
    tables = ("verdicts", "claims", "table1", "against_paper", "calibration", "temperature", "measures", "settings")
    assert {f"{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")} <= names
    figures = ("figure1b", "figure2", "figure3", "figure5", "curves", "calibration")
    assert {f"{name}-cifar100-resnet18.{ending}" for name in figures for ending in ("png", "pdf")} <= names


def test_report_of_one_experiment_has_identical_files(page, store_uri, tmp_path):
    """The evaluations are computed again here, since the folder is another one."""
    text = write(store_uri, tmp_path, "--experiment", "table1-mini").read_text()
    assert "Profile paper" not in text
    assert "The paper&#39;s recipe: not run" not in text  # other experiments may have run it
    assert "Only of table1-mini; other experiments may be tracked." in text
    assert "<li>dogs/resnet18/cross-entropy, seed 0: trained with" in text  # one pool: without its name
    files = [path for path in (tmp_path / "report").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert path.read_bytes() == (page.parent / path.relative_to(tmp_path)).read_bytes(), path


def test_folder_that_cannot_be_written_is_named(store_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match=r"results.* cannot be written \(.*\): set RESULTS_DIR or --results-dir"):
        report.main(["--results-dir", str(tmp_path / "results")])


STATE = """{
  images: Array.from(document.images, (image) => image.complete && image.naturalWidth > 0),
  alts: Array.from(document.images, (image) => image.alt.length),
  problems, title: document.title, width: innerWidth, scrollWidth: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:")),
  background: getComputedStyle(document.body).backgroundColor,
  broken: Array.from(document.querySelectorAll("nav a, .contents a"), (link) => link.getAttribute("href"))
    .filter((target) => !document.querySelector(target)),
}"""
needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_browser_shows_the_page_without_errors(page, tmp_path, width, dark):
    state, console = browser.evaluate(page, STATE, tmp_path, width=width, dark=dark)
    assert (console, state["problems"], state["fetched"], state["broken"]) == ([], [], [], [])
    assert len(state["images"]) > 10
    assert all(state["images"])
    assert min(state["alts"]) > 10
    assert state["title"].startswith("Does CS-KD hold?")
    assert (state["width"], state["scrollWidth"] <= width) == (width, True)
    assert state["background"] == ("rgb(23, 23, 26)" if dark else "rgb(255, 255, 255)")


SORTED = """(() => {
  const table = document.querySelector("#mini-runs ~ .tables table.sortable");
  const buttons = Array.from(table.querySelectorAll("th button")), names = buttons.map((button) => button.textContent);
  const column = (name) => Array.from(table.tBodies[0].rows, (row) => row.cells[names.indexOf(name)].textContent);
  const click = (name) => { buttons[names.indexOf(name)].click(); return column(name); };
  return { before: column("run"), up: click("last Top-1 error (%)"), down: click("last Top-1 error (%)"),
    runs: click("run"), mark: buttons[0].parentElement.getAttribute("aria-sort") };
})()"""


@needs_browser
def test_browser_sorts_by_number_and_by_text_both_ways(page, tmp_path):
    state, console = browser.evaluate(page, SORTED, tmp_path)
    assert console == []
    errors = [float(text) for text in state["up"] if re.match(r"\d", text)]
    assert (len(errors), errors) == (7, sorted(errors))
    assert state["up"][-1] == "\N{EN DASH}"  # the failed run has no error
    assert state["down"] == state["up"][::-1]
    assert (state["runs"], state["mark"]) == (sorted(state["before"]), "ascending")


@needs_browser
def test_browser_probe_detects_errors(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><head></head><body><img src='data:image/png;base64,xx'><script>nonsense()</script></body></html>"
    )
    problems, console = browser.evaluate(bad, "problems", tmp_path)
    assert (len(problems), len(console)) == (2, 1)
