"""The part ``memory``: the peak memory of a step of each method, each in a new process."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from cskd.utils.errors import UserError
from experiments.bench.device import peak_bytes
from experiments.bench.images import noise_images
from experiments.bench.results import BASELINE, Cell, Options, Row, Shown
from experiments.bench.timing import TimedTrainer

STEPS = 2  # the optimizer has its momentum buffers from the second step on
TABLE = (Shown("peak, MB", "peak_memory_megabytes", 0),)


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    rows = []
    for method in [BASELINE, *options.methods]:
        options.status(method)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                rows.append(process.submit(train_steps, cell, method).result())
            except BrokenProcessPool as error:
                message = f"the process that measures the memory of {method} was killed, perhaps for lack of memory"
                raise UserError(f"{message}: give a smaller batch, SET=batch_size=...") from error
    return {"memory": rows}


def train_steps(cell: Cell, method: str) -> Row:
    """Train some steps; return the row with this process's peak memory."""
    trainer = TimedTrainer(cell, method, noise_images(cell, STEPS), uncounted=0, counted=STEPS)
    trainer.measurement.seconds.append(trainer.turn(0))
    return trainer.measurement.row({"peak_memory_megabytes": f"{peak_bytes(trainer.device) / 1e6:.1f}"})
