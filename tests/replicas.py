"""Runs on several replicas in processes of their own, and one process that emulates them."""

import copy
import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import trainers

from cskd.batch import Batch
from cskd.methods.base import ForwardCache
from cskd.train import checkpoint
from cskd.train.distributed import SINGLE, Replicas
from cskd.train.schedule import Schedule
from cskd.train.trainer import Diverged, Interrupted, Trainer
from cskd.utils.seeding import generator

TESTS, SEED = 21, 3


@dataclass(frozen=True)
class Case:
    """A small run. With 33 images, its batches have 15, 15 and 3 images: no two replicas have equal parts."""

    method: str
    images: int = 33
    batch_size: int = 15
    epochs: int = 2
    lr: float = 0.1


@dataclass
class Result:
    """How a run ended. epochs: the ``train/`` metrics of each, and ``test/top1_error``. steps: that it took."""

    epochs: list[dict[str, float]]
    logits: np.ndarray | None
    state: dict[str, np.ndarray]
    steps: int
    error: str = ""


def on_replicas(count: int, *calls: tuple[Callable, ...]) -> list[list[Any]]:
    """Return the results of each call on each replica. A call is a function and its arguments after the replicas."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["replicas", "torch._dynamo"])  # slow imports, once for all replicas
    with ProcessPoolExecutor(count, context) as pool:
        ranks = [pool.submit(_call_all, rank, count, store.port, calls) for rank in range(count)]
        return [list(results) for results in zip(*(rank.result() for rank in ranks), strict=True)]


def _call_all(rank: int, count: int, port: int, calls: tuple[tuple[Callable, ...], ...]) -> list[Any]:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the parent's, as below torchrun
    }
    torch.set_num_threads(1)
    checkpoint.MAX_TIME_SHARE = math.inf  # after every epoch
    replicas = Replicas.join()
    try:
        return [function(replicas, *arguments) for function, *arguments in calls]
    finally:
        replicas.leave()


def make_trainer(case: Case, replicas: Replicas = SINGLE, folder: Path | None = None) -> Trainer:
    """Return the trainer of a case, with its checkpoint in the folder."""
    schedule = Schedule(epochs=case.epochs, lr=case.lr, milestones=(1,))
    data = {"images": case.images, "tests": TESTS, "batch_size": case.batch_size, "seed": SEED}
    return trainers.make_trainer(folder, method=case.method, schedule=schedule, replicas=replicas, **data)


def train(
    replicas: Replicas,
    case: Case,
    folder: Path | None = None,
    stop: tuple[int, int] | None = None,
    compiled: bool = False,
) -> Result:
    """Train a case, or continue it from the checkpoint in a folder.

    stop: (rank, steps): this replica asks to stop after so many steps.
    """
    trainer, steps, error, predictions = make_trainer(case, replicas, folder), [], "", None
    if compiled:
        trainer.compile()
    try:
        predictions = trainer.run(
            on_step=steps.append,
            should_stop=lambda: stop is not None and replicas.rank == stop[0] and len(steps) >= stop[1],
        )
        assert len(trainer.predict_training(max_images=9).logits) == 9
    except (Interrupted, Diverged) as caught:
        error = repr(caught)
    epochs = [
        {name: value for name, value in record["metrics"].items() if name.startswith("train/") or "top1" in name}
        for record in trainer.records
    ]
    return Result(epochs, predictions and predictions.logits, _state(trainer.model), len(steps), error)


def _state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def emulate(case: Case, count: int) -> Result:
    """Train a case in this process: for each replica a copy of the network, and the sum of the copies' gradients."""
    trainer = make_trainer(case)
    model, method, schedule = trainer.model, trainer.method, trainer.schedule
    copies = [copy.deepcopy(model).train() for _ in range(count)]
    optimizer = torch.optim.SGD(model.parameters(), momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    epochs = []
    for epoch in range(case.epochs):
        optimizer.param_groups[0]["lr"] = schedule.rate(epoch)
        whole = generator(SEED, "transform", epoch)
        own = [whole, *(generator(SEED, f"transform/{rank}", epoch) for rank in range(1, count))]
        sums, seen = [0.0] * count, 0
        for batch in trainer.loader.epoch(epoch):
            if method.mixes_labels:
                batch = method.transform(batch, whole)  # noqa: PLW2901
            images = len(batch.labels)
            parts = torch.arange(images).tensor_split(max(1, min(count, images // 2)))
            gradients = [torch.zeros_like(parameter) for parameter in model.parameters()]
            for rank, rows in enumerate(parts):
                network = copies[rank]
                network.load_state_dict(model.state_dict())
                network.zero_grad()
                part = _rows(batch, rows)
                if not method.mixes_labels:
                    part = method.transform(part, own[rank])
                cache = ForwardCache(network, part, trainer.normalise, trainer.step.teacher)
                values = [term.loss(cache) for term in method.terms()]
                loss = sum(term.weight * value for term, value in zip(method.terms(), values, strict=True))
                (len(rows) * count / images * loss).backward()
                for total, parameter in zip(gradients, network.parameters(), strict=True):
                    total += parameter.grad / count  # noqa: PLW2901 - in place
                sums[rank] += len(part.labels) * torch.stack([loss, *values]).detach().double()
                seen += len(part.labels)
            model.load_state_dict(copies[0].state_dict())  # the buffers of the first replica
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        names = ["loss", *(term.name for term in method.terms())]
        means = (sum(sums) / seen).tolist()
        epochs.append({f"train/{name}": mean for name, mean in zip(names, means, strict=True)})
    return Result(epochs, _logits(trainer, count), _state(model), 0)


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    views = {name: images[rows] for name, images in batch.views.items()}
    return Batch(views, batch.labels[rows], batch.targets[rows], batch.num_classes)


@torch.no_grad()
def _logits(trainer: Trainer, count: int) -> np.ndarray:
    """Return the logits of the test images, evaluated in as many equal shares as there are replicas."""
    share = math.ceil(TESTS / count)
    images = trainer.test_set.images.permute(0, 3, 1, 2)[torch.arange(count * share).clamp(max=TESTS - 1)]
    model = trainer.model.eval()
    parts = [model(trainer.normalise(batch)) for part in images.split(share) for batch in part.split(15)]
    return torch.cat(parts)[:TESTS].numpy()
