"""The report: every table, figure and verdict of the tracked runs, on one page and as files."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import Verdict, judge
from analysis.figures.effects import answer_effects, pool_effects
from analysis.figures.gather import pool_figures
from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import PAPER, Pool, pools
from analysis.load.store import Store
from analysis.load.studies import Study, load_studies
from analysis.report.html import Chapter, Page, Part, Picture, StudySection, to_html
from analysis.report.part import pool_part, save_picture
from analysis.stats.run_evaluations import evaluations
from analysis.tables.answer import answer_table
from analysis.tables.files import save_table, save_text
from cskd.evaluate.evaluation import Evaluations
from cskd.utils import cli

TITLE = "Does CS-KD hold? What was reproduced, and what was not"
LEAD = (
    "Yun, Park, Lee and Shin, Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020 "
    "(arXiv 2003.13964): in training, the prediction for an image is pulled towards the network's own prediction for "
    "another image of its class. The paper claims fewer errors and a better calibration.",
)
NOT_PAPER = "Only rows of profile paper are the paper's setting; the others judge CS-KD in their own setting."
PAPER_NOT_RUN = Part(
    "paper",
    "The paper's recipe: not run",
    ("None of the paper's numbers has been reproduced here; make reproduce-table1 trains its recipe.",),
)


def write_report(store: Store, names: list[str] | None, folder: Path, console: Console) -> Path:
    """Write the report of these experiments (None: all) into ``folder``; return the path of the page."""
    all_pools = pools(store.load(names))
    judged: list[tuple[Pool, list[Verdict]]] = []
    parts: list[Part] = []
    evaluated: list[Evaluations] = []
    notes: list[str] = []

    def note(pool: Pool, sentences: list[str]) -> None:
        """Add notes, with the pool's name if there are several pools."""
        notes.extend(f"{pool.title}: {sentence}" if len(all_pools) > 1 else sentence for sentence in sentences)

    with _progress(console) as progress:
        task = progress.add_task("predictions evaluated", total=sum(len(pool.done) for pool in all_pools))
        for pool in all_pools:
            of_pool, problems = evaluations(
                pool.done, store, folder / ".evaluations", folder / ".predictions", lambda: progress.advance(task)
            )
            evaluated.append(of_pool)
            note(pool, problems)
        task = progress.add_task("parts drawn", total=len(all_pools))
        claims = load_claims()
        for pool, of_pool in zip(all_pools, evaluated, strict=True):
            verdicts = judge(pool, claims, of_pool)
            judged.append((pool, verdicts))
            drawings, problems = pool_figures(pool, store, of_pool, folder / ".predictions", cli.data_dir())
            drawings |= pool_effects(pool, verdicts, of_pool)
            parts.append(pool_part(pool, verdicts, store, of_pool, drawings, folder))
            note(pool, [*pool.notes, *data_quality_notes(pool), *problems])
            progress.advance(task)
    answer = _answer(judged, folder)
    studies, problems = load_studies(store)
    lead = LEAD if names is None else (*LEAD, f"Only of {', '.join(names)}; other experiments may be tracked.")
    if names is None and all(pool.name != PAPER for pool in all_pools):
        parts.append(PAPER_NOT_RUN)
    parts.sort(key=lambda part: not part.chapters)  # what was not run is last, a line each
    page = Page(TITLE, lead, answer, tuple(parts), tuple(map(_study, studies)), tuple(dict.fromkeys(notes + problems)))
    path = folder / "report.html"
    save_text(path, to_html(page))
    return path


def _answer(judged: list[tuple[Pool, list[Verdict]]], folder: Path) -> Chapter:
    """Write the table and the figures of the first screen; return them."""
    files = folder / "report"
    files.mkdir(exist_ok=True)
    table = answer_table(judged)
    save_table(files, "answer", table)
    pictures = [save_picture(folder, files, f"effects-{metric}", drawing) for metric, drawing in answer_effects(judged)]
    is_paper = all(pool.name == PAPER for pool, _ in judged)
    return Chapter("answer", table.title, () if is_paper else (NOT_PAPER,), tuple(pictures), (table,))


def _progress(console: Console) -> Progress:
    """Return a progress bar with the remaining time, disabled unless the output is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _study(study: Study) -> StudySection:
    trials = ", ".join(f"{count} {state}" for state, count in study.trials.items() if count)
    text = f"{study.method} on {study.dataset}, {study.architecture}, profile {study.profile}. Trials: {trials}. "
    if study.best:
        best = ", ".join(f"{name} {value:.4g}" for name, value in study.best.items())
        text += f"Lowest {study.objective}: {study.value:.4g}, at {best}."
    elif len(study.objective.split()) > 1:
        text += "There is no single best trial for two objectives."
    else:
        text += "No trial is complete."
    picture = study.picture and Picture(study.picture, f"{study.picture_name} of {study.name}", study.name)
    return StudySection(study.name, text, picture)
