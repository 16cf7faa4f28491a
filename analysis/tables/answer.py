"""The answer over all pools: error, ECE and verdict of CS-KD beside cross-entropy."""

from collections.abc import Iterable

import pandas as pd

from analysis.claims.verdicts import NOT_RUN, Verdict
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, CS_KD
from analysis.stats.summary import summary
from analysis.tables.model import Column, Link, Outcome, Table, plain_table
from cskd.evaluate.metrics import all_metrics
from cskd.utils.numbers import MEAN_STD, mean_std_text

METRICS = {"top1_error": "error", "ece": "ECE"}  # what the paper's main claim is about, with the words of the headers
METHODS = {BASELINE: BASELINE, CS_KD: "CS-KD"}
NOTES = (
    f"{MEAN_STD.capitalize()} over the finished seeds, after the last epoch. ECE: 20 bins.",
    "holds: CS-KD is better at the 5 % level; contradicted: it is worse; equivalent: the difference is within the "
    "margin; undecided: none of these is shown.",
)


def answer_table(judged: Iterable[tuple[Pool, list[Verdict]]]) -> Table:
    """Return one row per pool, dataset and network with a finished run. The first column links to the pool's part."""
    columns = [Column("what was run")]
    for word in METRICS.values():
        columns += [Column(f"{word} (%), {method}", number=True) for method in METHODS.values()]
        columns.append(Column(f"verdict on the {word}"))
    columns.append(Column("seeds"))
    rows, records = [], []
    for pool, verdicts in judged:
        for dataset, network in groups(pool):
            runs = {method: pool.runs_of(dataset, network, method) for method in METHODS}
            record = {"pool": pool.name, "dataset": dataset, "architecture": network}
            counts = {len(pool.runs_of(dataset, network, method)) for method in pool.methods_on(dataset, network)} - {0}
            texts = [Link(f"{dataset}, {network}: {pool.title}", f"#{pool.name}")]
            for name in METRICS:
                metric = all_metrics()[name]
                for method, of_method in runs.items():
                    seeds = summary(of_method[metric.last])
                    record |= {f"{method} {name}": seeds.mean, f"{method} {name} std": seeds.std}
                    texts.append(mean_std_text(seeds.mean, seeds.std, metric.decimals))
                verdict = main_verdict(verdicts, name, dataset, network)
                record[f"{name} verdict"] = verdict.outcome if verdict else NOT_RUN
                texts.append(Outcome(record[f"{name} verdict"]))
            rows.append((*texts, " to ".join(map(str, sorted({min(counts), max(counts)})))))
            records.append(record)
    return plain_table("The answer so far", columns, rows, pd.DataFrame(records), NOTES)


def groups(pool: Pool) -> list[tuple[str, str]]:
    """Return each dataset and network of a pool that has a finished run, in the pool's order."""
    done = set(zip(pool.done.dataset, pool.done.architecture, strict=True))
    return [group for group in pool.groups if group in done]


def main_verdict(verdicts: Iterable[Verdict], metric: str, dataset: str, network: str) -> Verdict | None:
    """Return the verdict on CS-KD against cross-entropy, or None if no claim compares them there."""
    wanted = (metric, CS_KD, BASELINE, dataset, network)
    for verdict in verdicts:
        claim = verdict.claim
        if (claim.metric, claim.method, claim.against, verdict.dataset, verdict.architecture) == wanted:
            return verdict
    return None
