"""The report of made-up runs: what stands in it, that it is the same each time, and what a real browser sees."""

import io
import re

import browser
import numpy as np
import pytest
from mlflow import MlflowClient

from analysis.load.store import Store
from analysis.report import report
from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.errors import UserError

EVIL = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory, made_up):
    """The paper's recipe and mini, with what may be wrong with runs; two methods, three seeds."""
    folder = tmp_path_factory.mktemp("reported")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    settings = {"schedule.epochs": 2, "schedule.milestones": [1], "numerics_version": 1, "data_digest": "none"}
    for name, profile in (("table1", "paper"), ("table1-mini", "mini")):
        comparable = "yes" if profile == "paper" else f"no: profile {profile}"
        grid = made_up(client, folder, name, profile, settings, comparable)
        cross_entropy, cs_kd = (grid.cell("cifar100", method) for method in ("cross-entropy", "cs-kd"))
        for seed in range(3):
            for cell, error, ece, sharpness in ((cross_entropy, 24.5, 15, 4), (cs_kd, 22, 5, 1.5)):
                run_id = grid.run(cell, seed, error + 0.2 * seed**2, ece + seed, predictions=False)
                save(folder, name, run_id, seed, sharpness)
                history(grid, run_id, error)
    grid.run(grid.cell("dogs", "cross-entropy"), 0, 40, 12, git_dirty="true", predictions=False)
    grid.run(grid.cell("dogs", "cs-kd"), 0, state="failed", reason=f"NaN in {EVIL}")
    return uri


def save(folder, name, run_id, seed, sharpness):
    random = np.random.RandomState(seed)
    labels = np.arange(240) % 6
    logits = sharpness * (random.standard_normal((240, 6)) + 1.5 * np.eye(6)[labels])
    features = np.eye(6)[labels] + random.standard_normal((240, 6))
    path = folder / "mlartifacts" / name / run_id / "artifacts" / "predictions.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = ("apple", EVIL, "bear $x$", "cat", "dog", "eel")
    tested = Predictions(logits.astype("f4"), features.astype("f4"), labels, np.arange(240), classes)
    save_predictions(path, tested, Predictions(2 * tested.logits, tested.features, labels))


def history(grid, run_id, error):
    for epoch in range(2):
        for name, value in (("test/top1_error", 2 * error), ("test/ece", 20.0), ("train/loss", 1.0)):
            if epoch == 0 or name == "train/loss":
                grid.client.log_metric(run_id, name, value / (epoch + 1), timestamp=epoch, step=epoch)


def write(uri, folder, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DATA_DIR", str(folder))
        patch.setattr("sys.stdout", io.StringIO())
        assert report.main(["--results-dir", str(folder), *arguments]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(store_uri, tmp_path_factory):
    return write(store_uri, tmp_path_factory.mktemp("results"))


def test_every_part_is_there(page):
    text = page.read_text()
    assert "Profile paper" in text
    assert "Profile mini" in text
    for heading in ("The verdict", "Effects", "The paper&#39;s tables", "Calibration", "What was run"):
        assert text.count(f">{heading}</h3>") == 2, heading
    assert text.count("Ours against the paper&#39;s numbers</h3>") == 1  # mini's are not comparable
    assert "The paper&#39;s recipe: not run" not in text


def test_what_may_be_doubted_is_named(page):
    notes = page.read_text().split('<section id="notes">')[1]
    assert "mini: dogs/resnet18/cross-entropy, seed 0: from uncommitted changes, used." in notes
    assert "mini: dogs/resnet18/cross-entropy/seed0 has no predictions.npz: not evaluated." in notes
    assert "mini: dogs/resnet18/cs-kd/seed0 is failed (NaN in &lt;img" in notes
    assert "mini: curves, dogs, resnet18: dogs/resnet18/cross-entropy/seed0 has no history" in notes
    lines = re.findall("<li>(.*?)</li>", notes)
    assert all(line.startswith(("paper: ", "mini: ")) for line in lines)


def test_tables_and_figures_are_files_as_well(page):
    own = page.parent / "report" / "paper"
    names = {path.name for path in own.iterdir()}
    for name in (
        "verdicts",
        "claims",
        "table1",
        "against_paper",
        "calibration",
        "temperature",
        "separation",
        "settings",
    ):
        assert {f"{name}.csv", f"{name}.md", f"{name}.tex"} <= names
    for name in ("figure1b", "figure2", "figure3", "figure5", "curves", "calibration"):
        assert {f"{name}-cifar100-resnet18.png", f"{name}-cifar100-resnet18.pdf"} <= names


def test_the_same_runs_give_the_same_bytes_whether_kept_or_computed_anew(page, store_uri, tmp_path):
    kept = page.read_bytes()
    files = {path: path.read_bytes() for path in (page.parent / "report").rglob("*") if path.is_file()}
    write(store_uri, page.parent)
    assert page.read_bytes() == kept
    anew = write(store_uri, tmp_path)
    assert anew.read_bytes() == kept
    for path, content in files.items():
        assert (tmp_path / path.relative_to(page.parent)).read_bytes() == content, path


def test_only_the_experiments_asked_for(store_uri, tmp_path):
    text = write(store_uri, tmp_path, "--experiment", "table1-mini").read_text()
    assert "Profile paper" not in text
    assert "The paper&#39;s recipe: not run" not in text  # it may well have been run
    assert "Only of table1-mini; other experiments may be tracked." in text
    assert "<li>dogs/resnet18/cross-entropy, seed 0: from uncommitted changes, used.</li>" in text  # of one pool


def test_a_footnote_stands_once_below_the_tables_of_a_chapter(page):
    tables = page.read_text().split('<h3 id="paper-tables">')[1].split("<h3")[0]
    (message,) = re.findall("<li>(Bold: .*?)</li>", tables)
    assert message == "Bold: the best mean of a column, as printed, among several: the lowest, unless higher is better."
    assert tables.count("<li>R@1 (%): higher is better.</li>") == 1


def test_files_are_read_without_a_bar_for_each(store_uri, capsys):
    store = Store(store_uri)
    (run, *_) = store.load(["table1"])[0].done.itertuples()
    assert store.artifact(run.run_id, "predictions.npz")
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_named(store_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match=r"results.* cannot be written \(.*\): set RESULTS_DIR or --results-dir"):
        report.main(["--results-dir", str(tmp_path / "results")])


SEEN = """{
  images: Array.from(document.images, (image) => image.complete && image.naturalWidth > 0),
  alts: Array.from(document.images, (image) => image.alt.length),
  troubles, title: document.title, width: innerWidth, wide: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:")),
  dark: getComputedStyle(document.body).backgroundColor,
  broken: Array.from(document.querySelectorAll("nav a, .contents a"), (link) => link.getAttribute("href"))
    .filter((target) => !document.querySelector(target)),
}"""
in_a_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="needs Chromium: no browser was looked for errors in"
)


@in_a_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_a_browser_shows_all_of_it_without_an_error(page, tmp_path, width, dark):
    seen, console = browser.look(page, SEEN, tmp_path, width=width, dark=dark)
    assert console == []
    assert seen["troubles"] == []
    assert len(seen["images"]) > 10
    assert all(seen["images"])
    assert min(seen["alts"]) > 10
    assert seen["title"].startswith("Does CS-KD hold?")
    assert (seen["fetched"], seen["broken"]) == ([], [])
    assert seen["width"] == width
    assert seen["wide"] <= width
    assert seen["dark"] == ("rgb(23, 23, 26)" if dark else "rgb(255, 255, 255)")


SORTED = """(() => {
  const table = document.querySelector("#mini-runs ~ .tables table.sortable");
  const headers = Array.from(table.querySelectorAll("th button")), told = headers.map((one) => one.textContent);
  const column = (name) => Array.from(table.tBodies[0].rows, (row) => row.cells[told.indexOf(name)].textContent);
  const click = (name) => { headers[told.indexOf(name)].click(); return column(name); };
  return { before: column("run"), errors: click("last error (%)"), down: click("last error (%)"), names: click("run"),
    mark: headers[0].parentElement.getAttribute("aria-sort") };
})()"""


@in_a_browser
def test_tables_sort_by_numbers_and_by_texts_both_ways(page, tmp_path):
    seen, console = browser.look(page, SORTED, tmp_path)
    assert console == []
    errors = [float(text) for text in seen["errors"] if re.match(r"\d", text)]
    assert len(errors) == 7
    assert errors == sorted(errors)
    assert seen["errors"][-1] == "\N{EN DASH}"  # the failed run has no error
    assert seen["down"] == seen["errors"][::-1]
    assert seen["names"] == sorted(seen["before"])
    assert seen["mark"] == "ascending"


@in_a_browser
def test_the_test_of_the_browser_notices_errors(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><head></head><body><img src='data:image/png;base64,xx'><script>nonsense()</script></body></html>"
    )
    seen, console = browser.look(bad, "troubles", tmp_path)
    assert len(seen) == 2
    assert len(console) == 1
