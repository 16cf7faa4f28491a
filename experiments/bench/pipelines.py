"""The part ``pipelines``: a step of this suite against the same step with torchvision's data pipeline."""

from dataclasses import replace

import torch

from experiments.bench.images import noise_images
from experiments.bench.results import COMPARED, Cell, Options, Row
from experiments.bench.timing import TimedTrainer, Turns, comparison_columns, comparison_row, take_turns

TORCHVISION = {"pipeline": "torchvision", "precision": "fp32", "compile": False}
BATCHES_PER_WORKER = 2  # batches that each DataLoader worker prefetches
TABLE = comparison_columns("torchvision", "torchvision, fp32")


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    # Prefetched batches cost the counted steps nothing. Therefore as many steps are not counted, and as many further
    # batches exist, which the workers load during the counted steps.
    ahead = BATCHES_PER_WORKER * torch.get_num_threads()
    images = noise_images(cell, ahead + options.steps + ahead)
    torchvision_cell = replace(cell, settings=cell.settings.model_copy(update=TORCHVISION))
    methods = []
    for method in COMPARED:
        trainer = TimedTrainer(cell, method, images, uncounted=1, counted=options.steps)
        reference = TimedTrainer(torchvision_cell, method, images, uncounted=ahead, counted=options.steps)
        methods.append(Turns(trainer, {"torchvision": reference.turn}))
    take_turns(methods, options)
    return {"pipelines": [comparison_row(method, "torchvision") for method in methods]}
