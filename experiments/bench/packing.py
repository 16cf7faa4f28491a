"""Several seeds of one cell in one process: their steps one after another, against all of them as one.

Packed is what torch.func.vmap makes of the same step: the networks' parameters are stacked, and each layer is computed
for all seeds together. No run is trained that way: this is to tell where it would be worth building.
"""

import warnings
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from cskd.data.loader import Batch
from cskd.randomness import generator
from cskd.step import Step
from cskd.training import Trainer
from experiments.bench.clock import now
from experiments.bench.files import write_rows
from experiments.bench.images import made_up
from experiments.bench.ours import Ours
from experiments.bench.pairs import METHODS
from experiments.bench.tables import Cell, Measured, about, numbers_table, ratios
from experiments.recipe import Settings

SEEDS = 3  # the paper's number


class Whole(nn.Module):
    """A step's arithmetic as a module, whose parameters can be others for a call."""

    def __init__(self, step: Step):
        super().__init__()
        self.model, self.step = step.model, step

    def forward(self, *batch: Any) -> tuple[Tensor, Tensor]:
        return self.step.eager(Batch(*batch))


class Packed:
    """The trainers' steps as one: stacked parameters and batches, the sum of the losses, one optimiser.

    compiled: as the runs are, but on a GPU without CUDA graphs, into which parameters that are no module's would be
    copied in every step.
    """

    def __init__(self, trainers: list[Trainer], counted: int, compiled: bool):
        self.trainers, self.counted = trainers, counted
        first = trainers[0]
        whole = Whole(first.step)
        self.parameters, self.buffers = stack_module_state([Whole(trainer.step) for trainer in trainers])
        evaluate = vmap(partial(_evaluate, whole), in_dims=(0, 0, 0, 0, 0, None))
        self.evaluate = torch.compile(evaluate, fullgraph=True, dynamic=False) if compiled else evaluate
        settings = {name: value for name, value in first.optimizer.param_groups[0].items() if name != "params"}
        self.optimizer = torch.optim.SGD(self.parameters.values(), **settings)

    def step(self, batches: list[Batch]) -> None:
        views = {name: torch.stack([batch.views[name] for batch in batches]) for name in batches[0].views}
        labels, targets = (torch.stack([getattr(batch, name) for batch in batches]) for name in ("labels", "targets"))
        with warnings.catch_warnings():
            # cs-kd's divergence is computed seed by seed, and vmap says so; it is a small part of a step.
            warnings.filterwarnings("ignore", message=".*batching rule for aten::kl_div")
            losses, _ = self.evaluate(self.parameters, self.buffers, views, labels, targets, batches[0].num_classes)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimizer.step()

    def turn(self, number: int) -> float:
        """Seconds of a step of all, after an uncounted one."""
        draws = [generator(trainer.seed, "transform", number) for trainer in self.trainers]
        loaders = [trainer.loader.loader.epoch(number) for trainer in self.trainers]
        started = 0.0
        for index, raw in enumerate(islice(zip(*loaders, strict=True), 1 + self.counted)):
            if index == 1:
                started = now(self.trainers[0].device)
            batches = [
                trainer.method.transform(batch, draw)
                for trainer, batch, draw in zip(self.trainers, raw, draws, strict=True)
            ]
            self.step(batches)
        return (now(self.trainers[0].device) - started) / self.counted


def measure(cells: list[Cell], turns: int, steps: int, console: Console, progress: Progress) -> None:
    results = []
    task = progress.add_task("packing", total=len(cells) * len(METHODS) * (1 + turns))
    for cell in cells:
        rows = []
        for method in METHODS:
            runs, packed = _group(cell, method, steps)
            apart, together = [], []
            for turn in range(1 + turns):
                seconds = sum(run.turn(turn) for run in runs), packed.turn(turn)
                if turn:  # the first one is for allocations and caches
                    apart.append(seconds[0])
                    together.append(seconds[1])
                progress.advance(task)
            rows.append((replace(runs[0].measured, seconds=apart), together))
        console.print(_table(rows))
        results += [_row(*row) for row in rows]
    write_rows("packing", results, console)


def _group(cell: Cell, method: str, steps: int) -> tuple[list[Ours], Packed]:
    """A run a seed, and the same seeds packed."""
    name, profile, settings, architecture = cell
    dataset = made_up(name, settings, 1 + steps)

    def runs(settings: Settings) -> list[Ours]:
        return [
            Ours(dataset, profile, settings, architecture, method, seed=seed, uncounted=1, counted=steps)
            for seed in range(SEEDS)
        ]

    apart, stacked = runs(settings), runs(settings.model_copy(update={"compile": False}))
    return apart, Packed([run.trainer for run in stacked], steps, compiled=apart[0].measured.compiled)


def _table(rows: list[tuple[Measured, list[float]]]) -> Table:
    table = numbers_table(rows[0][0], (f"ms of {SEEDS} seeds' steps, apart", "packed", "x apart", "from", "to"))
    for apart, packed in rows:
        seconds = (apart.median, median(packed))
        times = ratios(packed, apart.seconds)
        table.add_row(apart.method, *(f"{1000 * one:.0f}" for one in seconds), *(f"{ratio:.2f}" for ratio in times))
    return table


def _row(apart: Measured, packed: list[float]) -> dict[str, Any]:
    middle, least, most = ratios(packed, apart.seconds)
    return {
        **apart.cell(),
        "seeds": SEEDS,
        "seconds_apart": f"{apart.median:.6f}",
        "seconds_packed": f"{median(packed):.6f}",
        "ratio": f"{middle:.4f}",
        "ratio_min": f"{least:.4f}",
        "ratio_max": f"{most:.4f}",
        **about(apart),
    }


def _evaluate(whole: Whole, parameters: dict, buffers: dict, *batch: Any) -> tuple[Tensor, Tensor]:
    return functional_call(whole, (parameters, buffers), batch)
