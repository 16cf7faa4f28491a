"""The report: every table, figure and verdict of the tracked runs, on one page and as files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import NOT_RUN, OUTCOMES, Verdict, judge
from analysis.figures.captions import CAPTIONS
from analysis.figures.effects import Effect, forest_plot
from analysis.figures.gather import pool_figures
from analysis.load.data_quality import data_quality_notes
from analysis.load.frames import NAME
from analysis.load.pools import PAPER, Pool, pools
from analysis.load.store import Store
from analysis.load.studies import Study, load_studies
from analysis.report.html import Chapter, Page, Part, Picture, StudySection, to_html
from analysis.stats.run_evaluations import evaluations
from analysis.tables.calibration import calibration_table, measures_table, scaling_table
from analysis.tables.export import save_table, save_text
from analysis.tables.methods import methods_table
from analysis.tables.model import Table
from analysis.tables.paper import against_paper_table, paper_tables
from analysis.tables.provenance import introduction
from analysis.tables.runs import run_table, settings_table
from analysis.tables.verdicts import summary_table, verdict_table
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import all_metrics
from cskd.plots import save_figure
from cskd.utils import cli

TITLE = "Does CS-KD hold? What was reproduced, and what was not"
LEAD = (
    "Yun, Park, Lee and Shin, Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020 "
    "(arXiv 2003.13964). In training, the prediction for an image is pulled towards the network's own prediction for "
    "another image of its class. The paper claims that such a network makes fewer errors and is better calibrated.",
)
EFFECTS = (
    "Each effect is the method minus the other after the last epoch, with its 95 % interval. For top-1 error and ECE, "
    "the interval is over seeds and test images if the predictions of all compared runs are evaluated. For other "
    "metrics it is over seeds only, and holds for these test images. An effect without a line has one seed."
)
PAPER_NOT_RUN = Part(
    "paper",
    "The paper's recipe: not run",
    (
        "No run of the paper's recipe (profile paper) is tracked: none of its numbers has been reproduced here.",
        "make reproduce-table1 trains this recipe.",
    ),
    (),
)
MAX_LISTED = 40  # a longer list of verdicts is folded


def write_report(store: Store, names: list[str] | None, folder: Path, console: Console) -> Path:
    """Write the report of these experiments (None: all) into ``folder``; return the path of the page."""
    all_pools = pools(store.load(names))
    parts: list[Part] = []
    evaluated: list[Evaluations] = []
    notes: list[str] = []

    def note(pool: Pool, sentences: list[str]) -> None:
        """Add notes, with the pool's name if there are several pools."""
        notes.extend(f"{pool.name}: {sentence}" if len(all_pools) > 1 else sentence for sentence in sentences)

    with _progress(console) as progress:
        task = progress.add_task("predictions evaluated", total=sum(len(pool.done) for pool in all_pools))
        for pool in all_pools:
            of_pool, problems = evaluations(
                pool.done, store, folder / ".evaluations", folder / ".predictions", lambda: progress.advance(task)
            )
            evaluated.append(of_pool)
            note(pool, problems)
        task = progress.add_task("parts drawn", total=len(all_pools))
        for pool, of_pool in zip(all_pools, evaluated, strict=True):
            part, problems = _part(pool, store, of_pool, folder)
            parts.append(part)
            note(pool, [*pool.notes, *data_quality_notes(pool), *problems])
            progress.advance(task)
    studies, problems = load_studies(store)
    lead = LEAD if names is None else (*LEAD, f"Only of {', '.join(names)}; other experiments may be tracked.")
    if names is None and all(pool.name != PAPER for pool in all_pools):
        parts.insert(0, PAPER_NOT_RUN)
    page = Page(TITLE, lead, tuple(parts), tuple(map(_study, studies)), tuple(dict.fromkeys(notes + problems)))
    path = folder / "report.html"
    save_text(path, to_html(page))
    return path


def _progress(console: Console) -> Progress:
    """Return a progress bar with the remaining time, disabled unless the output is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _part(pool: Pool, store: Store, evaluated: Evaluations, folder: Path) -> tuple[Part, list[str]]:
    """Write one pool's tables and figures to files; return its part of the page, and notes on what is missing."""
    files = folder / "report" / pool.name
    files.mkdir(parents=True, exist_ok=True)
    verdicts = judge(pool, load_claims(), evaluated)
    figures, notes = pool_figures(pool, store, evaluated, folder / ".predictions", cli.data_dir())
    pictures = {name: _saved(files, name, figure) for name, figure in (*_effects(pool, verdicts), *figures.items())}
    tables = _tables(pool, verdicts, evaluated)
    numbered = paper_tables(pool)
    for name, table in (tables | numbered).items():
        save_table(files, name, table)

    def shown(*kinds: str) -> tuple[Picture, ...]:
        return tuple(picture for name, picture in pictures.items() if name.startswith(kinds))

    def shown_tables(*names: str) -> tuple[Table, ...]:
        return tuple(tables[name] for name in names if name in tables)

    judged = [verdict for verdict in verdicts if verdict.outcome != NOT_RUN]
    verdict = verdict_table(pool, judged) if len(judged) <= MAX_LISTED else tables["claims"]
    against = shown_tables("against_paper")
    chapters = (
        Chapter(
            "verdict",
            "The verdict",
            (_counts(pool, verdicts),),
            tables=(verdict,),
            folded=shown_tables("claims", "verdicts"),
        ),
        Chapter("effects", "Effects", (EFFECTS,), shown("effects")),
        *([Chapter("against", "Ours against the paper's numbers", tables=against)] if against else []),
        *([Chapter("methods", "Every method", tables=shown_tables("methods"))] if "methods" in tables else []),
        Chapter("tables", "The paper's tables", tables=tuple(numbered.values()), sortable=False),
        Chapter("figures", "The paper's figures", pictures=shown("figure")),
        Chapter(
            "calibration",
            "Calibration",
            pictures=shown("calibration"),
            tables=shown_tables("calibration", "temperature"),
        ),
        Chapter("measures", "Further measures", tables=shown_tables("measures")),
        Chapter("curves", "Learning curves", pictures=shown("curves")),
        Chapter("runs", "Runs and settings", tables=(run_table(pool, store),), folded=shown_tables("settings")),
    )
    return Part(pool.name, f"Profile {pool.name}", _lead(pool), chapters), notes


def _tables(pool: Pool, verdicts: list[Verdict], evaluated: Evaluations) -> dict[str, Table]:
    tables = {
        "claims": summary_table(pool, verdicts),
        "verdicts": verdict_table(pool, verdicts),
        "against_paper": against_paper_table(pool),
        "calibration": calibration_table(pool, evaluated),
        "temperature": scaling_table(pool, evaluated),
        "measures": measures_table(pool, evaluated),
        "methods": methods_table(pool, evaluated),
        "settings": settings_table(pool),
    }
    return {name: table for name, table in tables.items() if table is not None}


def _counts(pool: Pool, verdicts: list[Verdict]) -> str:
    """Return the number of verdicts by outcome, with a warning unless the setting is the paper's."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    numbers = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
    warning = "" if pool.name == PAPER else f" Profile {pool.name} is not the paper's setting: no verdict on the paper."
    return f"The claims, each on all its datasets and networks: {numbers}.{warning}"


def _effects(pool: Pool, verdicts: list[Verdict]) -> Iterator[tuple[str, Figure]]:
    """Yield (file name, forest plot) for each metric with a comparison."""
    for metric in dict.fromkeys(verdict.claim.metric for verdict in verdicts):
        effects = []
        for verdict in verdicts:
            claim = verdict.claim
            if claim.metric != metric or verdict.comparison is None:
                continue
            low, high = verdict.comparison.widest.interval
            label = f"{verdict.dataset}, {verdict.architecture}: {claim.method} \N{MINUS SIGN} {claim.against}"
            effects.append(Effect(label, verdict.comparison.effect.value, low, high, verdict.outcome))
        if effects:
            title = f"{all_metrics()[metric].label}, {pool.name}"
            yield f"effects-{metric}", forest_plot(title, "difference", effects, OUTCOMES)


def _lead(pool: Pool) -> tuple[str, ...]:
    """Return the runs, datasets, networks and methods of a pool in sentences."""
    states = pool.runs.state.value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "none begun"
    datasets, networks, methods = (", ".join(dict.fromkeys(pool.cells[name])) for name in NAME)
    return (
        *introduction(pool),
        f"Runs: {counts}. Datasets: {datasets}. Networks: {networks}. Methods: {methods}.",
    )


def _saved(folder: Path, name: str, figure: Figure) -> Picture:
    """Save a figure as PNG and PDF; return it for the page."""
    for ending in (".png", ".pdf"):
        save_figure(figure, folder / f"{name}{ending}")
    kind, _, cell = name.partition("-")
    alt, caption = CAPTIONS[kind]
    return Picture((folder / f"{name}.png").read_bytes(), f"{alt}: {cell}", caption)


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
