"""Tuning studies as a table: for each method the recipe's setting beside the best one, on the validation images."""

from pathlib import Path

import pandas as pd

from analysis.measured.runs import paper_order
from analysis.tables.format import markdown_link, to_markdown
from analysis.tables.model import Block, Column, Row, Table
from cskd.evaluate.metrics import METRICS, Metric, all_metrics
from cskd.utils.errors import UserError, first_line
from cskd.utils.numbers import ABSENT, number_text

SHOWN = {"nll": "NLL (nats)", "top1_error": "error (%)"}
NOTES = (
    "After the last epoch, on the validation images, not the test set; one seed. Recipe: the first trial, the recipe's "
    "setting. Best: the trial with the lowest value. As the best of several, it looks better than it is.",
)


def studies(name: str, folder: Path, base: Path) -> str:
    """Return the studies in the files ``study-<dataset>-<method>-<name>.csv`` as Markdown, with links to the files.

    Such a file is a copy of a study's ``trials.csv`` (docs/tuning.md). Arguments and errors as in ``results``.
    """
    paths = {}
    for path in folder.glob(f"study-*-{name}.csv"):
        dataset, _, method = path.stem.removeprefix("study-").removesuffix(f"-{name}").partition("-")
        paths[dataset, method] = path
    if not paths:
        raise UserError(f"{folder} has no study-*-{name}.csv: copy trials.csv of the studies, or remove their marker")
    methods = paper_order((method for _, method in paths), "method")
    paths = dict(sorted(paths.items(), key=lambda item: (item[0][0], methods.index(item[0][1]))))
    objective = next((metric for metric in METRICS if metric.short_name in name.split("-")), METRICS[0])
    rows = tuple((*study, *_row(path, objective)) for study, path in paths.items())
    headers = [f"{metric}: {setting}" for metric in SHOWN.values() for setting in ("recipe", "best")]
    columns = [Column("dataset"), Column("method"), Column("complete trials", number=True)]
    columns += [*(Column(header, number=True) for header in headers), Column("best setting")]
    table = to_markdown(Table("", tuple(columns), (Block("", (rows,)),), pd.DataFrame(), notes=NOTES))
    links = ", ".join(markdown_link(path, base, " ".join(study)) for study, path in paths.items())
    return f"{table.rstrip()}\n\nEvery trial: {links}."


def _row(path: Path, objective: Metric) -> Row:
    """Return the number of complete trials, the values of the recipe's and the best trial, and the best setting."""
    try:
        trials = pd.read_csv(path)
        trials = trials[trials.state == "complete"]
        recipe, best = trials[trials.trial == 0], trials.nsmallest(1, objective.name)
        values = [list(trial[metric]) for metric in SHOWN for trial in (recipe, best)]
        names = trials.columns[list(trials).index("state") + 1 : list(trials).index("top1_error")]
    except (OSError, ValueError, KeyError, AttributeError) as error:  # the errors of pandas are ValueErrors
        raise UserError(f"{path} cannot be read ({first_line(error)}): restore it, or remove it") from error
    decimals = [all_metrics()[metric].decimals for metric in SHOWN for _ in (recipe, best)]
    texts = [number_text(*value, digits) if value else ABSENT for value, digits in zip(values, decimals, strict=True)]
    setting = ", ".join(f"{name} {value:.3g}" for name in names for value in best[name])
    return str(len(trials)), *texts, setting or ABSENT
