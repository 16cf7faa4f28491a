"""A step as this suite trains against the same one through the pipeline of most published code."""

import torch
from rich.console import Console
from rich.progress import Progress

from experiments.bench.files import write_rows
from experiments.bench.images import made_up
from experiments.bench.ours import TimedTrainer
from experiments.bench.pairs import METHODS, Pair, row_of, table_of, take_turns
from experiments.bench.tables import Cell

CONVENTIONAL = {"pipeline": "torchvision", "precision": "fp32", "compile": False}
PER_WORKER = 2  # batches that a DataLoader's worker makes ahead


def measure(cells: list[Cell], turns: int, steps: int, console: Console, progress: Progress) -> None:
    results = []
    task = progress.add_task("pipelines", total=len(cells) * (1 + turns))
    for cell in cells:
        pairs = [_pair(cell, method, steps) for method in METHODS]
        take_turns(pairs, turns, lambda: progress.advance(task))
        console.print(table_of(pairs, "torchvision, fp32"))
        results += [row_of(pair, "torchvision") for pair in pairs]
    write_rows("pipelines", results, console)


def _pair(cell: Cell, method: str, steps: int) -> Pair:
    name, profile, settings, architecture = cell
    # Batches made ahead cost the counted steps nothing: as many are not counted, and as many more are made meanwhile.
    ahead = PER_WORKER * torch.get_num_threads()
    dataset = made_up(name, settings, ahead + steps + ahead)
    conventional = settings.model_copy(update=CONVENTIONAL)
    ours = TimedTrainer(dataset, profile, settings, architecture, method, uncounted=1, counted=steps)
    theirs = TimedTrainer(dataset, profile, conventional, architecture, method, uncounted=ahead, counted=steps)
    return Pair(ours, theirs.turn)
