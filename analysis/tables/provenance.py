"""What a table says of itself: what was trained, where, and what is missing from it."""

import pandas as pd

from analysis.load.frames import DONE, NAME, Experiment
from analysis.load.pools import Pool
from analysis.stats.comparability import comparability
from cskd import NUMERICS_VERSION


def introduction(experiment: Experiment | Pool) -> tuple[str, ...]:
    """The sentences before a table without the paper's numbers: what it is, and that it is not the paper's."""
    compared = comparability(experiment)
    if compared.comparable.any():
        return ()
    profiles = ", ".join(dict.fromkeys(experiment.cells.profile))
    overrides = ", ".join(experiment.overrides)
    changed = f" with settings changed from the recipe ({overrides})" if overrides else ""
    reasons = [reason for reason in dict.fromkeys(compared.comparable_reason) if not reason.startswith("profile ")]
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return (f"Profile {profiles}{changed}: not comparable with the paper{why}.", *_trained(experiment))


def footer(experiment: Experiment | Pool) -> tuple[str, ...]:
    """Where the finished runs come from, and which runs are not finished or were left out."""
    notes = []
    done = experiment.done
    if len(done):
        notes.append(origin(done))
        notes += _of_other_numerics(done)
    notes += [
        f"Tuned: {cell.cell}: {cell.tuned_values}." for cell in experiment.cells.itertuples() if cell.tuned_values
    ]
    unfinished = [
        f"{run.run} {run.state}{f' ({run.reason})' if run.reason else ''}"
        for run in experiment.runs.itertuples()
        if run.state != DONE
    ]
    if unfinished:
        notes.append(f"Not finished: {'; '.join(unfinished)}.")
    return (*notes, *experiment.notes)


def _of_other_numerics(done: pd.DataFrame) -> list[str]:
    """The finished runs of another numerics version than this, unless none says which it is of."""
    if "params.numerics_version" not in done:
        return []
    others: dict[str, list[str]] = {}
    for run, version in zip(done.run, done["params.numerics_version"], strict=True):
        if version != str(NUMERICS_VERSION):
            others.setdefault(version if isinstance(version, str) else "unknown", []).append(run)
    return [
        f"Of numerics version {version}, this is {NUMERICS_VERSION}: {', '.join(names)}."
        for version, names in others.items()
    ]


def origin(done: pd.DataFrame) -> str:
    """The commits, machines and days of some finished runs, at least one."""
    machines = (f"{run.machine or 'unknown machine'} ({device_text(run)})" for run in done.itertuples())
    first, last = (f"{day:%Y-%m-%d}" for day in (done.started.min(), done.ended.max()))
    days = first if first == last else f"{first} to {last}"
    commits = ", ".join(_commits(done))
    return f"Commit: {commits}. Machine: {', '.join(dict.fromkeys(machines))}. Run: {days} (UTC)."


def device_text(run) -> str:
    """Return device, threads, precision and "compiled" of a run, as far as they are known."""
    threads = f"{run.threads} thread{'' if run.threads == '1' else 's'}" if run.threads else ""
    compiled = "compiled" if run.compiled == "true" else ""
    return ", ".join(filter(None, (run.device, threads, run.precision, compiled)))


def _commits(runs: pd.DataFrame) -> list[str]:
    """Short commits in the order of the runs; "dirty" where any run of one had uncommitted changes."""
    dirty: dict[str, bool] = {}
    for run in runs.itertuples():
        for commit in run.git_commit.split() or ["unknown"]:  # a resumed run may have several
            dirty[commit] = dirty.get(commit, False) or run.git_dirty == "true"
    return [f"{commit[:12]}{' (dirty)' if flag else ''}" for commit, flag in dirty.items()]


def _trained(experiment: Experiment | Pool) -> tuple[str, ...]:
    """What each dataset and network came to, from the settings of the runs; datasets alike stand together."""
    datasets: dict[str, list[str]] = {}
    for (dataset, _), runs in experiment.runs.groupby(NAME[:2], sort=False):
        for message in dict.fromkeys(trained_with(run) for run in runs.to_dict("records")):
            datasets.setdefault(message, []).append(dataset)
    if not datasets:
        return ()
    parts = (f"{', '.join(dict.fromkeys(names))}: {message}" for message, names in datasets.items())
    return (f"Trained: {'; '.join(parts)}.",)


def trained_with(run: dict) -> str:
    """What one run of a frame of runs was trained on and for how long, in a few words."""

    def setting(name: str) -> str | None:
        value = run.get(f"params.{name}")
        return value if isinstance(value, str) else None  # NaN where other runs have it and this one has not

    parts = []
    if setting("subset.images_per_class"):
        classes = setting("subset.classes").replace("None", "all")
        parts.append(f"{classes} classes x {setting('subset.images_per_class')} training images")
    else:
        parts.append("all classes and training images")
    parts.append(run["architecture"] + (f" of width {setting('width')}" if setting("width") else ""))
    if setting("inputs.image_size"):
        parts.append(f"{setting('inputs.image_size')} px")
    if setting("schedule.epochs"):
        parts.append(f"{setting('schedule.epochs')} epochs")
    return ", ".join(parts)
