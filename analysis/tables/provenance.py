"""The sentences around a table: what was trained, where, and what is missing."""

from collections.abc import Callable, Iterable

import pandas as pd

from analysis.load.frames import DONE, ENVIRONMENT, Experiment
from analysis.load.source import commit_texts
from analysis.stats.comparability import comparability
from cskd import NUMERICS_VERSION

SETTINGS = ("subset.classes", "subset.images_per_class", "width", "inputs.image_size", "schedule.epochs")  # in words


def introduction(experiment: Experiment) -> tuple[str, ...]:
    """Return what was trained and why it is not comparable with the paper; () if any cell is comparable."""
    compared = comparability(experiment)
    if compared.comparable.any():
        return ()
    reasons = "; ".join(dict.fromkeys(compared.comparable_reason))
    changed = [f"Settings changed from the recipe: {', '.join(experiment.overrides)}."] if experiment.overrides else []
    columns = ["dataset", "architecture", *(f"params.{name}" for name in SETTINGS)]
    runs = experiment.runs.filter(items=columns).drop_duplicates().to_dict("records")
    return (f"Not comparable with the paper: {reasons}.", *changed, *trained(runs))


def footer(experiment: Experiment) -> tuple[str, ...]:
    """Return where the finished runs come from, and which runs are unfinished or left out."""
    done, notes = experiment.done, []
    if len(done):
        notes += [origin(done), *_other_numerics(done)]
    cells = experiment.cells[experiment.cells.tuned_values != ""]
    notes += [f"Tuned: {cell.cell}: {cell.tuned_values}." for cell in cells.itertuples()]
    unfinished = [
        f"{run.run} {run.state}{f' ({run.reason})' if run.reason else ''}"
        for run in experiment.runs[["run", "state", "reason"]].itertuples()
        if run.state != DONE
    ]
    if unfinished:
        notes.append(f"Not finished: {'; '.join(unfinished)}.")
    return (*notes, *experiment.notes)


def _other_numerics(done: pd.DataFrame) -> list[str]:
    if "params.numerics_version" not in done:
        return []
    versions = done["params.numerics_version"].fillna("unknown")
    others = done.run[versions != str(NUMERICS_VERSION)].groupby(versions, sort=False)
    return [
        f"Trained with numerics version {version}, the current one is {NUMERICS_VERSION}: {', '.join(names)}."
        for version, names in others
    ]


def origin(done: pd.DataFrame) -> str:
    """Return the commits, machines and days of one or more finished runs."""
    machines = (
        f"{run.machine or 'unknown machine'} ({_device_text(run)})" for run in done[list(ENVIRONMENT)].itertuples()
    )
    first, last = (f"{day:%Y-%m-%d}" for day in (done.started.min(), done.ended.max()))
    days = first if first == last else f"{first} to {last}"
    commits = ", ".join(commit_texts(done.git_commit, done.git_dirty))
    return f"Commit: {commits}. Machine: {', '.join(dict.fromkeys(machines))}. Run: {days} (UTC)."


def _device_text(run) -> str:
    """Return device, threads, precision and "compiled" of a run, as far as they are known."""
    threads = f"{run.threads} thread{'' if run.threads == '1' else 's'}" if run.threads else ""
    compiled = "compiled" if run.compiled == "true" else ""
    return ", ".join(filter(None, (run.device, threads, run.precision, compiled)))


def trained(runs: Iterable[dict], order: Callable[[list[str]], Iterable[str]] = dict.fromkeys) -> list[str]:
    """Return the settings of all runs in a sentence, if there is a run. Datasets with equal settings are together.

    order: sorts the names of datasets, and removes repeated ones.
    """
    datasets: dict[str, list[str]] = {}
    for run in runs:
        datasets.setdefault(_trained_with(run), []).append(run["dataset"])
    parts = [f"{', '.join(order(names))}: {settings}" for settings, names in datasets.items()]
    return [f"Trained: {'; '.join(parts)}."] if parts else []


def _trained_with(run: dict) -> str:
    """Return a run's training images, network and epochs in a few words."""

    def setting(name: str) -> str:
        value = run.get(f"params.{name}")
        return value if isinstance(value, str) else ""  # NaN if only other runs of the frame have the setting

    parts = ["all classes and training images"]
    if images := setting("subset.images_per_class"):
        parts = [f"{setting('subset.classes').replace('None', 'all')} classes x {images} training images"]
    width, size, epochs = map(setting, ("width", "inputs.image_size", "schedule.epochs"))
    is_scaled = width and ":" not in run["architecture"]  # the networks of torchvision and timm have their own width
    parts.append(run["architecture"] + (f" of width {width}" if is_scaled else ""))
    parts += [f"{size} px"] if size else []
    parts += [f"{epochs} epochs"] if epochs else []
    return ", ".join(parts)
