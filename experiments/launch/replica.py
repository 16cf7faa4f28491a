"""A replica of a run on several devices: ``torchrun -m experiments.launch.replica``, started by the run's worker."""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from cskd.train.distributed import Replicas
from cskd.train.trainer import Interrupted
from cskd.utils.cli import Parser
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_HELD, EXIT_INTERRUPTED
from experiments.launch.build import build_trainer, compile_step
from experiments.launch.worker import StopRequest, further_predictions, how_it_ended, log, train_run
from experiments.runs.environment import choose_device, use_repeatable_kernels
from experiments.runs.folder import INTERRUPTED, RunFolder
from experiments.runs.lease import LeaseLost

ENDING_SECONDS = 0.5  # a process that ends closes its connections before it counts as ended


def main() -> int:
    parser = Parser(prog="python -m experiments.launch.replica", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lease", required=True, metavar="TOKEN", help="of the worker")
    parser.add_argument("--report", type=Path, required=True, help="the file in which a failed replica says why")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads of this replica")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    should_stop = StopRequest(launcher=os.getppid())
    folder = RunFolder(arguments.folder)
    try:
        train(folder, arguments.lease, should_stop)
    except LeaseLost:
        return EXIT_HELD
    except Exception as error:
        if not isinstance(error, Interrupted):
            log(traceback.format_exc())
        state, reason = how_it_ended(error, should_stop)
        if isinstance(error, Interrupted) or all_are_alive():
            # Only one process can create the file.
            with suppress(OSError), arguments.report.open("x") as file:
                json.dump({"state": state, "reason": reason or "a replica was stopped"}, file)
        return EXIT_INTERRUPTED if state == INTERRUPTED else EXIT_FAILED
    return EXIT_DONE


def all_are_alive() -> bool:
    """Return True if no replica has ended. If one has, its end makes the others fail."""
    time.sleep(ENDING_SECONDS)
    with suppress(psutil.NoSuchProcess):
        replicas = psutil.Process(os.getppid()).children()
        alive = [replica for replica in replicas if replica.status() != psutil.STATUS_ZOMBIE]
        return len(alive) == int(os.environ["LOCAL_WORLD_SIZE"])
    return False


def train(folder: RunFolder, token: str, should_stop: StopRequest) -> None:
    """Train this replica to the last epoch; the first one writes the run's results."""
    replicas, device = Replicas.join(), choose_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if replicas.is_first:
        with folder.leased_by(token):
            train_run(folder, device, should_stop, replicas)
    else:
        train_beside(folder, device, should_stop, replicas)
    replicas.leave()


def train_beside(folder: RunFolder, device: torch.device, should_stop: StopRequest, replicas: Replicas) -> None:
    """Train beside the first replica, and write nothing."""
    spec = folder.spec()
    precision, compiled, threads = replicas.share(None)
    torch.set_num_threads(threads)
    use_repeatable_kernels(precision, device)
    trainer = build_trainer(spec, folder, device, precision, replicas)
    if compiled:
        compile_step(trainer, spec.settings)
    trainer.run(should_stop=should_stop)
    further_predictions(trainer, should_stop)


if __name__ == "__main__":
    sys.exit(main())
