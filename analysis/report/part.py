"""One pool's part of the report: its chapters, and its tables and figures as files."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from analysis.claims.verdicts import NOT_RUN, OUTCOMES, Verdict
from analysis.figures.captions import CAPTIONS
from analysis.load.frames import NAME, format_count
from analysis.load.pools import PAPER, Pool
from analysis.load.store import Store
from analysis.report.html import Chapter, Part, Picture
from analysis.report.svg import to_svg
from analysis.tables.calibration import calibration_table, measures_table, scaling_table
from analysis.tables.files import Drawing, save_drawing, save_table
from analysis.tables.methods import methods_table
from analysis.tables.metrics import is_tracked, metric_table
from analysis.tables.model import Table
from analysis.tables.paper import against_paper_table, paper_tables
from analysis.tables.provenance import introduction
from analysis.tables.runs import run_table, settings_table
from analysis.tables.verdicts import summary_table, verdict_table
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import TRACKED

EFFECTS = (
    "Each effect is the method minus the other after the last epoch, with its 95 % interval. For top-1 error, NLL, "
    "Brier score and the calibration errors, the interval of a claim is over seeds and test images if the predictions "
    "of all compared runs are evaluated. For other metrics, and for the intervals of all methods (Dunnett's), it is "
    "over seeds only, and holds for these test images. An effect without a line has no interval: a side has one seed, "
    "or equal values."
)
MAX_LISTED = 40  # rows; a longer table is folded
OPEN_METRICS = ("top1_error", "ece")  # the tables of the other metrics are folded


def pool_part(
    pool: Pool,
    verdicts: list[Verdict],
    store: Store,
    evaluated: Evaluations,
    drawings: dict[str, Drawing],
    folder: Path,
) -> Part:
    """Write a pool's tables and figures below ``folder``; return its part of the page.

    A pool without a finished run is one line.
    """
    heading = pool.title[0].upper() + pool.title[1:]
    if pool.done.empty:
        return Part(pool.name, f"{heading}: not run", (f"{_states(pool)}.",))
    files = folder / "report" / pool.name
    files.mkdir(parents=True, exist_ok=True)
    tables = _tables(pool, store, verdicts, evaluated)
    numbered = paper_tables(pool)
    for name, table in (tables | numbered).items():
        save_table(files, name, table)
    pictures = {name: save_picture(folder, files, name, drawing) for name, drawing in drawings.items()}

    def shown(*kinds: str) -> tuple[Picture, ...]:
        return tuple(picture for name, picture in pictures.items() if name.startswith(kinds))

    def shown_tables(*names: str) -> tuple[Table, ...]:
        return tuple(_without_title(tables[name], pool) for name in names if name in tables)

    judged = [verdict for verdict in verdicts if verdict.outcome != NOT_RUN]
    first = verdict_table(pool, judged) if len(judged) <= MAX_LISTED else tables["claims"]
    filled, partly = _paper_layouts(numbered, pool)
    metrics = [metric.name for metric in TRACKED]
    chapters = (
        _chapter(
            "verdict",
            "Verdicts on the claims",
            (_counts(pool, verdicts),),
            tables=(_without_title(first, pool),) if judged else (),
            folded=shown_tables("claims", "verdicts"),
        ),
        _chapter("effects", "Effects", (EFFECTS,), pictures=shown("effects")),
        _chapter("against", "Ours against the paper's numbers", tables=shown_tables("against_paper")),
        _chapter("methods", "Every method", tables=shown_tables("methods")),
        _chapter(
            "metrics",
            "Every metric",
            tables=shown_tables(*OPEN_METRICS),
            folded=shown_tables(*(name for name in metrics if name not in OPEN_METRICS)),
        ),
        Chapter("tables", "The paper's tables", tables=filled, folded=partly, sortable=False),
        _chapter("figures", "The paper's figures", pictures=shown("figure")),
        _chapter(
            "calibration",
            "Calibration",
            pictures=shown("calibration", "overfitting"),
            tables=shown_tables("calibration", "temperature"),
        ),
        _chapter("measures", "Further measures", tables=shown_tables("measures")),
        _chapter("curves", "Learning curves", pictures=shown("curves")),
        _chapter("runs", "Runs and settings", tables=shown_tables("runs"), folded=shown_tables("settings")),
    )
    chapters = tuple(chapter for chapter in chapters if not chapter.is_empty)
    links = sorted(map(store.cells_address, pool.done["experiment_id"].unique()))
    lead = (*_lead(pool), f"In MLflow ('make ui'): {' '.join(links)}")
    return Part(pool.name, heading, lead, chapters)


def save_picture(results: Path, files: Path, name: str, drawing: Drawing) -> Picture:
    """Save a figure as PNG and PDF in the folder ``files``, unless it was drawn before; return it for the page."""

    def to_text(figure: Figure) -> str:
        text = to_svg(figure, f"{files.name}/{name}")
        figure.set_layout_engine("none")  # keeps the layout, whose computation is slow
        return text

    paths = [files / f"{name}{ending}" for ending in (".png", ".pdf")]
    svg = save_drawing(drawing, paths, results / ".drawings" / files.relative_to(results) / f"{name}.json", to_text)
    kind, _, cell = name.partition("-")
    alt, caption = CAPTIONS[kind]
    return Picture(svg, f"{alt}: {cell}", caption)


def _tables(pool: Pool, store: Store, verdicts: list[Verdict], evaluated: Evaluations) -> dict[str, Table]:
    tables = {
        "claims": summary_table(pool, verdicts),
        "verdicts": verdict_table(pool, verdicts),
        "against_paper": against_paper_table(pool),
        **{metric.name: metric_table(pool, metric) for metric in TRACKED if is_tracked(pool, metric)},
        "calibration": calibration_table(pool, evaluated),
        "temperature": scaling_table(pool, evaluated),
        "measures": measures_table(pool, evaluated),
        "methods": methods_table(pool, evaluated),
        "runs": run_table(pool, store),
        "settings": settings_table(pool),
    }
    return {name: table for name, table in tables.items() if table is not None and table.blocks}


def _chapter(
    anchor: str,
    heading: str,
    lead: tuple[str, ...] = (),
    *,
    pictures: tuple[Picture, ...] = (),
    tables: tuple[Table, ...] = (),
    folded: tuple[Table, ...] = (),
) -> Chapter:
    """Return a chapter in which long tables are folded."""
    rows = {table.title: sum(len(group) for block in table.blocks for group in block.groups) for table in tables}
    short = tuple(table for table in tables if rows[table.title] <= MAX_LISTED)
    long = tuple(table for table in tables if rows[table.title] > MAX_LISTED)
    return Chapter(anchor, heading, lead, pictures, short, (*long, *folded))


def _without_title(table: Table, pool: Pool) -> Table:
    """Return the table without the pool in its title: the heading of the part names it."""
    return replace(table, title=table.title.removesuffix(f", {pool.title}"))


def _paper_layouts(tables: dict[str, Table], pool: Pool) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    """Return the tables of which every method was run, and the others, with the number of methods in their titles."""
    filled, partly = [], []
    for table in tables.values():
        methods = set(table.frame.method)
        run = set(table.frame.method[table.frame.n > 0])
        shown = _without_title(table, pool)
        if run == methods:
            filled.append(shown)
        else:
            count = f"{len(run)} of {format_count(len(methods), 'method')} run" if run else "not run"
            partly.append(replace(shown, title=f"{shown.title} ({count})"))
    return tuple(filled), tuple(partly)


def _counts(pool: Pool, verdicts: list[Verdict]) -> str:
    """Return the number of verdicts by outcome, with a warning unless the setting is the paper's."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    numbers = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
    warning = "" if pool.name == PAPER else " This is not the paper's setting: no verdict on the paper itself."
    return f"The claims, each on all its datasets and networks: {numbers}.{warning}"


def _states(pool: Pool) -> str:
    states = pool.runs.state.value_counts()
    return "Runs: " + (", ".join(f"{count} {state}" for state, count in states.items()) or "none begun")


def _lead(pool: Pool) -> tuple[str, ...]:
    """Return the runs, datasets, networks and methods of a pool in sentences."""
    datasets, networks, methods = (", ".join(dict.fromkeys(pool.cells[name])) for name in NAME)
    return (
        *introduction(pool),
        f"{_states(pool)}. Datasets: {datasets}. Networks: {networks}. Methods: {methods}.",
    )
