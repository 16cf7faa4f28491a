"""Write results/report.html: every table, figure and verdict of what is tracked, in one page that needs nothing else.

Nothing is trained. What a run's predictions come to is computed once and kept by run key in RESULTS_DIR; the same
runs give the same page. Its tables and figures are also written to files, below RESULTS_DIR/report/.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.claims.claims import Claim, load_claims
from analysis.claims.verdicts import NOT_RUN, OUTCOMES, Verdict, judge
from analysis.figures.captions import CAPTIONS
from analysis.figures.effects import Effect, forest_plot
from analysis.figures.gather import pool_figures
from analysis.load.data_quality import data_quality_notes
from analysis.load.frames import NAME
from analysis.load.pools import PAPER, Pool, pools
from analysis.load.store import Store
from analysis.load.studies import Study, load_studies
from analysis.paper.against_paper import against_paper_table
from analysis.paper.domains import domain_table
from analysis.paper.paper_tables import paper_tables
from analysis.report.html import Chapter, Page, Part, Picture, StudyShown, to_html
from analysis.stats.evaluation import Evaluation, evaluations
from analysis.tables.calibration import calibration_table, scaling_table, separation_table
from analysis.tables.export import save_table, save_text
from analysis.tables.provenance import introduction
from analysis.tables.runs import run_table, settings_table
from analysis.tables.verdicts import summary_table, verdict_table
from cskd.evaluate.metrics import TRACKED
from cskd.plots import save_figure
from cskd.utils import cli
from cskd.utils.errors import UserError

TITLE = "Does CS-KD hold? What was reproduced, and what was not"
LEAD = (
    "Yun, Park, Lee and Shin, Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020 "
    "(arXiv 2003.13964): a network whose prediction for an image is pulled towards its own, gradient-free prediction "
    "for another image of the same class should make fewer errors and be better calibrated.",
)


MAX_LISTED = 40  # verdicts
EFFECTS = (
    "The method minus the other after the last epoch, with its 95 % interval: of top-1 error and ECE over seeds and "
    "test images where the predictions of all runs compared have been evaluated; of other metrics over seeds alone, "
    "for these very test images. No line: one seed."
)


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="only these tracked grids; default: all")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    store = Store(cli.tracking_uri())
    try:
        path = write(store, options.experiment, options.results_dir, console)
    except OSError as error:
        where = f"{error.filename or options.results_dir} cannot be written ({error.strerror})"
        raise UserError(f"{where}: set RESULTS_DIR or --results-dir") from error
    console.print(f"Written to {path}: open it in a browser.", markup=False, soft_wrap=True)
    return 0


def write(store: Store, names: list[str] | None, folder: Path, console: Console) -> Path:
    """The report of these experiments (None: all) into ``folder``; returns its path.

    Raises OSError for what cannot be written.
    """
    every = pools(store.load(names))
    claims = load_claims()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Evaluation] = {}
    notes: list[str] = []
    with _progress(console) as progress:
        total = sum(len(pool.done) for pool in every)
        task = progress.add_task("predictions evaluated", total=total)
        for pool in every:
            of_pool, troubles = evaluations(
                pool.done, store, folder / ".evaluations", folder / ".predictions", lambda: progress.advance(task)
            )
            found |= of_pool
            notes += _of_pool(pool, every, troubles)
        task = progress.add_task("parts drawn", total=len(every))
        parts = []
        for pool in every:
            part, troubles = _part(pool, store, found, claims, folder)
            parts.append(part)
            notes += _of_pool(pool, every, [*pool.notes, *data_quality_notes(pool), *troubles])
            progress.advance(task)
    studies, troubles = load_studies(store)
    shown = tuple(_study(study) for study in studies)
    lead = LEAD if names is None else (*LEAD, f"Only of {', '.join(names)}; other experiments may be tracked.")
    absent = _paper_not_run(every) if names is None else ()
    page = Page(TITLE, lead, (*absent, *parts), shown, tuple(dict.fromkeys(notes + troubles)))
    path = folder / "report.html"
    save_text(path, to_html(page))
    return path


def _of_pool(pool: Pool, every: list[Pool], notes: list[str]) -> list[str]:
    """Each with the pool's name where there are several: another may have what this one lacks."""
    return [f"{pool.name}: {note}" for note in notes] if len(every) > 1 else notes


def _progress(console: Console) -> Progress:
    """A bar with the time left on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _paper_not_run(every: list[Pool]) -> tuple[Part, ...]:
    """What the page says of the paper's own recipe where nothing was trained by it."""
    if any(pool.name == PAPER for pool in every):
        return ()
    message = "No run of the paper's recipe (profile paper) is tracked: none of its numbers has been reproduced here."
    return (Part("paper", "The paper's recipe: not run", (message, "make reproduce-table1 trains it."), ()),)


def _part(
    pool: Pool, store: Store, found: dict[str, Evaluation], claims: tuple[Claim, ...], folder: Path
) -> tuple[Part, list[str]]:
    """One pool's tables and figures, written to files and as a part of the page; and what it lacks."""
    own = folder / "report" / pool.name
    own.mkdir(parents=True, exist_ok=True)
    verdicts = judge(pool, claims, found)
    figures, notes = pool_figures(pool, store, found, folder / ".predictions", cli.data_dir())
    pictures = {name: _saved(own, name, figure) for name, figure in (*_effects(pool, verdicts), *figures.items())}
    tables = {
        "claims": summary_table(pool, verdicts),
        "verdicts": verdict_table(pool, verdicts),
        "against_paper": against_paper_table(pool),
        "calibration": calibration_table(pool, found),
        "temperature": scaling_table(pool, found),
        "separation": separation_table(pool, found),
        "settings": settings_table(pool),
    }
    numbered = {f"table{number}": table for number, table in paper_tables(pool).items()}
    domains = domain_table(pool)
    numbered |= {} if domains is None else {"figure4": domains}
    for name, table in (tables | numbered).items():
        if table is not None:
            save_table(own, name, table)

    def shown(*kinds: str) -> tuple[Picture, ...]:
        return tuple(one for name, one in pictures.items() if name.startswith(kinds))

    against = tables["against_paper"]
    # What was judged is shown where it is not too much to read, else counted; all of it is one click away.
    judged = [verdict for verdict in verdicts if verdict.outcome != NOT_RUN]
    message = verdict_table(pool, judged) if len(judged) <= MAX_LISTED else tables["claims"]
    folded = (tables["claims"], tables["verdicts"])
    chapters = (
        Chapter("verdict", "The verdict", _judged(pool, verdicts), tables=(message,), folded=folded),
        Chapter("effects", "Effects", (EFFECTS,), shown("effects")),
        *([Chapter("against", "Ours against the paper's numbers", tables=(against,))] if against else []),
        Chapter("tables", "The paper's tables", tables=tuple(numbered.values()), sortable=False),
        Chapter("figures", "The paper's figures", pictures=shown("figure")),
        Chapter(
            "calibration",
            "Calibration",
            pictures=shown("calibration"),
            tables=(tables["calibration"], tables["temperature"]),
        ),
        Chapter("variation", "Variation inside a class", tables=(tables["separation"],)),
        Chapter("curves", "Learning curves", pictures=shown("curves")),
        Chapter("runs", "What was run", tables=(run_table(pool, store),), folded=(tables["settings"],)),
    )
    return Part(pool.name, f"Profile {pool.name}", _lead(pool), chapters), notes


def _judged(pool: Pool, verdicts: list[Verdict]) -> tuple[str, ...]:
    """The verdicts counted, in a sentence; and that another setting than the paper's says nothing final of it."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    message = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
    where = "" if pool.name == PAPER else f" Profile {pool.name} is not the paper's setting: no verdict on the paper."
    return (f"The paper's claims, each on every dataset and network that it is judged on: {message}.{where}",)


def _effects(pool: Pool, verdicts: list[Verdict]) -> Iterator[tuple[str, Figure]]:
    """A forest plot for each metric in which anything was compared."""
    titles = {metric.name: metric.label for metric in TRACKED}
    for metric in dict.fromkeys(verdict.claim.metric for verdict in verdicts):
        effects = []
        for verdict in verdicts:
            if verdict.claim.metric != metric or verdict.effect is None:
                continue
            low, high = (verdict.with_images or verdict.effect).interval
            claim = verdict.claim
            label = f"{verdict.dataset}, {verdict.architecture}: {claim.method} \N{MINUS SIGN} {claim.against}"
            effects.append(Effect(label, verdict.effect.value, low, high, verdict.outcome))
        if effects:
            title = titles.get(metric, metric.replace("_", " "))
            yield f"effects-{metric}", forest_plot(f"{title}, {pool.name}", "difference", effects, OUTCOMES)


def _lead(pool: Pool) -> tuple[str, ...]:
    """What was trained, in sentences."""
    states = pool.runs.state.value_counts()
    message = ", ".join(f"{count} {state}" for state, count in states.items()) or "none begun"
    datasets, networks, methods = (", ".join(dict.fromkeys(pool.cells[name])) for name in NAME)
    return (
        *introduction(pool),
        f"Runs: {message}. Datasets: {datasets}. Networks: {networks}. Methods: {methods}.",
    )


def _saved(folder: Path, name: str, figure: Figure) -> Picture:
    """A figure as PNG and PDF, and as the page has it."""
    for ending in (".png", ".pdf"):
        save_figure(figure, folder / f"{name}{ending}")
    kind, _, which = name.partition("-")
    alt, caption = CAPTIONS[kind]
    return Picture((folder / f"{name}.png").read_bytes(), f"{alt}: {which}", caption)


def _study(study: Study) -> StudyShown:
    best = ", ".join(f"{name} {value:.4g}" for name, value in study.best.items())
    trials = ", ".join(f"{count} {state}" for state, count in study.trials.items() if count)
    message = f"{study.method} on {study.dataset}, {study.architecture}, profile {study.profile}. Trials: {trials}. "
    if study.best:
        message += f"Lowest {study.objective}: {study.value:.4g}, at {best}."
    elif len(study.objective.split()) > 1:
        message += "Of two objectives there is no single best."
    else:
        message += "No trial is complete."
    shown = study.picture and Picture(study.picture, f"{study.picture_name} of {study.name}", study.name)
    return StudyShown(study.name, message, shown)
