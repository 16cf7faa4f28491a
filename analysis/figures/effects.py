"""Forest plots: effects with their intervals, of the verdicts on claims and of every method."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.claims.verdicts import OUTCOMES, Verdict
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.answer import METRICS, groups, main_verdict
from analysis.tables.files import Drawing
from analysis.tables.methods import methods_table
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import PERCENT, Metric, all_metrics
from cskd.plots import BLACK, BLUE, GREEN, INK, ORANGE, SKY, VERMILION, MethodStyle, method_style, plain, wrapped

# Colour and marker both differ, for grey print and colour-blind readers.
OUTCOME_STYLES = dict(
    zip(
        OUTCOMES,
        map(MethodStyle, (BLUE, VERMILION, GREEN, ORANGE, SKY, BLACK), ("o", "X", "D", "^", "s", "v")),
        strict=True,
    )
)
WIDTH = 3.8  # inches: as wide as a phone
LETTERS = 56  # of a label's line
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Effect:
    """One row: an effect, the ends of its interval (NaN if unknown), and the name of its style."""

    label: str
    effect: float
    low: float
    high: float
    style: str


def answer_effects(judged: Iterable[tuple[Pool, list[Verdict]]]) -> Iterator[tuple[str, Drawing]]:
    """Yield (metric, drawing): what CS-KD changes on every dataset and network of every pool."""
    judged = list(judged)
    for name, word in METRICS.items():
        effects = []
        for pool, verdicts in judged:
            for dataset, network in groups(pool):
                verdict = main_verdict(verdicts, name, dataset, network)
                if verdict and verdict.comparison:
                    effects.append(_of_verdict(verdict, f"{dataset}, {network}: {pool.title}"))
        if effects:
            title = f"{word[0].upper()}{word[1:]}: CS-KD {MINUS} cross-entropy"
            yield name, Drawing(forest_plot, title, direction(all_metrics()[name], "CS-KD"), effects, OUTCOME_STYLES)


def pool_effects(pool: Pool, verdicts: Iterable[Verdict], evaluations: Evaluations) -> dict[str, Drawing]:
    """Return ``{name: drawing}``: the effects that the claims need, and those of every method."""
    drawings = {f"effects-claims-{name}": drawing for name, drawing in _claim_effects(pool, verdicts)}
    return drawings | {f"effects-methods-{name}": drawing for name, drawing in _method_effects(pool, evaluations)}


def _claim_effects(pool: Pool, verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Drawing]]:
    """Yield (metric, drawing) for each metric of a claim with a comparison."""
    by_metric: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.comparison:
            by_metric.setdefault(verdict.claim.metric, []).append(verdict)
    for name, of_metric in by_metric.items():
        methods = {verdict.claim.method for verdict in of_metric}
        better = methods.pop() if len(methods) == 1 else "the first method"
        effects = [
            _of_verdict(
                verdict,
                f"{verdict.claim.method} {MINUS} {verdict.claim.against}: {verdict.dataset}, {verdict.architecture}",
            )
            for verdict in of_metric
        ]
        metric = all_metrics()[name]
        title = f"{metric.title}, claims, {pool.title}"
        yield name, Drawing(forest_plot, title, direction(metric, better), effects, OUTCOME_STYLES)


def _method_effects(pool: Pool, evaluations: Evaluations) -> Iterator[tuple[str, Drawing]]:
    """Yield (metric, drawing): every method minus cross-entropy, or minus CS-KD where cross-entropy was not run.

    Nothing if cross-entropy and CS-KD are the only methods: the claims compare them.
    """
    table = None if {*pool.done.method} <= {BASELINE, CS_KD} else methods_table(pool, evaluations)
    if table is None:
        return
    for name, rows in table.frame.groupby("metric", sort=False):
        for control in (BASELINE, CS_KD):
            column = f"minus_{control.replace('-', '_')}"
            compared = rows.dropna(subset=[column])
            if compared.empty:
                continue
            effects = [
                Effect(
                    f"{row['method']}: {row['dataset']}, {row['architecture']}",
                    *(row[f"{column}{end}"] for end in ("", "_low", "_high")),
                    row["method"],
                )
                for row in compared.to_dict("records")
            ]
            styles = {method: method_style(method) for method in compared.method}
            title = f"{all_metrics()[name].title}: methods {MINUS} {control}, {pool.title}"
            axis = direction(all_metrics()[name], "the method")
            yield name, Drawing(forest_plot, title, axis, effects, styles, legend=False)
            break


def _of_verdict(verdict: Verdict, label: str) -> Effect:
    comparison = verdict.comparison
    return Effect(label, comparison.effect.value, *comparison.widest.interval, verdict.outcome)


def direction(metric: Metric, method: str) -> str:
    """Return the label of an axis of differences: which way ``method`` is better, and the unit."""
    unit = "points" if metric.scale == PERCENT else metric.unit
    unit = f" ({unit})" if unit else ""
    if metric.higher_is_better:
        return f"{method} better \N{RIGHTWARDS ARROW}{unit}"
    return f"\N{LEFTWARDS ARROW} {method} better{unit}"


def forest_plot(
    title: str, xlabel: str, effects: Sequence[Effect], styles: Mapping[str, MethodStyle], *, legend: bool = True
) -> Figure:
    """Draw one row per effect, from top to bottom: its label, and below it the interval as a line."""
    labels = [textwrap.wrap(effect.label, LETTERS, break_on_hyphens=False) for effect in effects]
    title = wrapped(title, WIDTH)
    rows, below = [], 0.0  # the position of each row, in lines of text
    for lines in labels:
        rows.append(below + len(lines) + 0.4)
        below += len(lines) + 1.1
    entries = [name for name in styles if any(effect.style == name for effect in effects)] if legend else []
    height = 0.92 + 0.17 * (title.count("\n") + below) + 0.2 * bool(entries)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for row, lines, effect in zip(rows, labels, effects, strict=True):
        color, marker, _ = styles[effect.style]
        axes.plot([0, 0], [row - 0.4, row + 0.45], color=INK, linewidth=1)
        axes.plot([effect.low, effect.high], [row, row], color=color, linewidth=1.8)
        axes.plot(
            [effect.effect], [row], color=color, marker=marker, markersize=7, markeredgewidth=1.6, linestyle="none"
        )
        text = plain("\n".join(lines))
        axes.text(0, row - 0.5, text, transform=axes.get_yaxis_transform(), va="bottom", fontsize=8, color=INK)
    axes.set(ylim=(below, 0), yticks=[])
    axes.set_xlabel(plain(xlabel), fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(plain(title), fontsize=9, x=0.02, ha="left")
    if entries:
        handles = [
            Line2D([], [], color=color, marker=marker, markersize=6, linewidth=1.8)
            for color, marker, _ in (styles[name] for name in entries)
        ]
        figure.legend(
            handles, list(map(plain, entries)), loc="outside lower center", ncols=4, fontsize=8, frameon=False
        )
    return figure
