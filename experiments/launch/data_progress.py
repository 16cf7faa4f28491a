"""Progress of a dataset's preparation: a bar on a terminal, a line per stage elsewhere."""

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cskd.data.folders import free_bytes, gigabytes
from cskd.data.sources.base import first_few
from cskd.data.store import Dataset
from cskd.utils.errors import one_line
from experiments.config.datasets import missing_archives, preparation_bytes, prepare_data, unprepared_sources
from experiments.config.settings import Data

MAX_NAMED = 20  # skipped files; ``dataset.json`` of the prepared dataset has all


def prepare_with_progress(name: str, data: Data, data_dir: Path, console: Console, *, partial: bool = False) -> Dataset:
    """Call ``prepare_data``, show its progress on the console, and warn of skipped files."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()),
        *(TextColumn("{task.fields[amount]}"), TimeRemainingColumn()),
    )
    disable = console.is_dumb_terminal or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        dataset = prepare_data(name, data, data_dir, partial=partial, report=PreparationReport(name, progress))
    if dataset.skipped:
        files = first_few(dataset.skipped, MAX_NAMED)
        print(f"warning: {name}: {len(dataset.skipped):,} files are skipped: {one_line(files)}", file=sys.stderr)
    return dataset


def preparation_lines(sections: dict[str, Data], data_dir: Path) -> list[str]:
    """Return lines about the data that a launch prepares first, and about datasets that a plan cannot count."""
    sources = {
        source.name: source for name, data in sections.items() for source in unprepared_sources(name, data, data_dir)
    }
    official = [source for source in sources.values() if source.num_classes is not None]
    own = [name for name, source in sources.items() if source.num_classes is None]
    lines = []
    if official:
        download, disk = preparation_bytes(official, data_dir)
        fetched = f"{gigabytes(download)} to download and " if download else ""
        lines.append(
            f"The launch first prepares {', '.join(source.name for source in official)}: about {fetched}"
            f"{gigabytes(disk)} of disk in {data_dir} ({gigabytes(free_bytes(data_dir))} free). The plan uses the "
            "official numbers of images, and counts all runs of these datasets as to do."
        )
    for archive in (archive for source in official for archive in missing_archives(source, data_dir)):
        if archive.needs_account:
            lines.append(f"Before the launch, {archive.manual_download(data_dir / 'downloads')}.")
    if own:
        lines.append(f"Not counted: {', '.join(f'{name} (not prepared: make data DATASET={name})' for name in own)}")
    return lines


class PreparationReport:
    """Shows the stage of a preparation, and how much of it is done (see ``cskd.data.folders.ProgressReport``)."""

    def __init__(self, dataset: str, progress: Progress):
        self.dataset, self.progress = dataset, progress
        self.stage = self.task = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage != self.stage:
            self.stage = stage
            for task in self.progress.task_ids:
                self.progress.remove_task(task)
            self.task = self.progress.add_task(f"{self.dataset}: {stage}", total=total, amount="")
            if self.progress.disable:
                print(f"{self.dataset}: {stage} {format_amount(stage, None, total)}".rstrip(), flush=True)
        self.progress.update(self.task, completed=done, total=total, amount=format_amount(stage, done, total))


def format_amount(stage: str, done: int | None, total: int | None) -> str:
    """Return such as ``3.1/169.0 MB`` or ``1,200/50,000``. An unknown number is left out."""
    numbers = [number for number in (done, total) if number is not None]
    if stage.endswith("images"):
        return "/".join(f"{number:,}" for number in numbers)
    return "/".join(f"{number / 1e6:,.1f}" for number in numbers) + (" MB" if numbers else "")
