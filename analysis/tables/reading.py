"""What CS-KD changes in an experiment, as sentences for the terminal."""

from statistics import fmean

from analysis.claims.comparison import compare, other_values, side_of
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, CS_KD
from analysis.tables.format import interval_text
from cskd.evaluate.metrics import all_metrics
from cskd.utils.numbers import number_text

READ = ("top1_error", "ece")


def reading(pool: Pool) -> list[str]:
    """Return a sentence for each metric of READ, dataset and network with finished runs of CS-KD and cross-entropy.

    Lower and higher are at the 5 % level, over the seeds; the verdicts of the report also correct for their number.
    """
    sentences = []
    for dataset, architecture in dict.fromkeys(zip(pool.cells.dataset, pool.cells.architecture, strict=True)):
        for name in READ:
            metric = all_metrics()[name]
            sides = [side_of(pool, dataset, architecture, method, name, {}) for method in (CS_KD, BASELINE)]
            if not all(side.values for side in sides) or sides[0].settings != sides[1].settings:
                continue
            others = other_values(pool, dataset, architecture, (CS_KD, BASELINE), name, {})
            effect = compare(*sides, others, name, {}).effect
            ours, baseline = (number_text(fmean(side.values.values()), metric.decimals) for side in sides)
            difference = number_text(effect.value, metric.decimals, sign=True)
            interval = interval_text(effect.interval, metric.decimals, sign=True)
            if effect.excludes_zero:
                result = f"{interval}: {'lower' if effect.value < 0 else 'higher'}"
            else:
                result = f"{interval}: may be chance" if interval else "(too few seeds for an interval)"
            sentences.append(
                f"{dataset}, {architecture}: {metric.title} {baseline} % with {BASELINE}, {ours} % with {CS_KD}: "
                f"{difference} {result}."
            )
    return sentences
