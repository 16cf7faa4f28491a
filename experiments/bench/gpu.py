"""The part ``gpu``: every stage of training on its own, first whether it is correct, then how fast it is.

Each stage has a time limit, and a process that failed is replaced, so that a failed stage does not stop the next.
Without a GPU, the same stages run on the CPU with small networks. It needs neither pydantic nor MLflow nor Optuna:
``python -m experiments.bench.gpu`` is ``make bench PARTS=gpu`` without the packages of the suite.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from cskd.utils import cli
from cskd.utils.errors import first_line
from cskd.utils.files import write_errors
from experiments.bench import gpu_speed, gpu_stages
from experiments.bench.clone import Clone, find_clone
from experiments.bench.gpu_stages import Skipped
from experiments.bench.gpu_trainers import Lab
from experiments.runs.environment import choose_device

PASSED, SKIPPED, FAILED = "passed", "skipped", "FAILED"
FILE = "gpu.jsonl"  # a line for each stage
Row = dict[str, Any]


class Stage(NamedTuple):
    """A stage, and the seconds that it may take, with compilation and the start of its process."""

    run: Callable[[Lab], dict[str, Any]]
    limit: int


STAGES = {
    "device": Stage(gpu_stages.device_and_dtypes, 90),
    "matrix rate": Stage(gpu_stages.matrix_rate, 60),
    "resident input": Stage(gpu_stages.resident_input, 60),
    "eager step": Stage(gpu_stages.eager_step, 90),
    "compiled step": Stage(gpu_stages.compiled_step, 180),
    "captured steps": Stage(gpu_stages.captured_steps, 180),
    "last batch": Stage(gpu_stages.last_batch, 180),
    "evaluation": Stage(gpu_stages.evaluation, 120),
    "exact resume": Stage(gpu_stages.exact_resume, 180),
    "run": Stage(gpu_speed.whole_run, 180),
    "speed of cs-kd": Stage(partial(gpu_speed.speed, method="cs-kd"), 180),
    "speed of cross-entropy": Stage(partial(gpu_speed.speed, method="cross-entropy"), 180),
    "released cs-kd": Stage(partial(gpu_speed.released_speed, method="cs-kd"), 120),
    "released cross-entropy": Stage(partial(gpu_speed.released_speed, method="cross-entropy"), 120),
    "two runs at once": Stage(gpu_speed.two_runs, 240),
    "kernels": Stage(gpu_speed.kernels, 120),
}


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--reference", metavar="FOLDER", help="a clone of the released code, github.com/alinlab/cs-kd")
    arguments = parser.parse_args()
    return run_stages(cli.results_dir() / "bench", arguments.reference)


def run_stages(folder: Path, reference: str | None = None) -> int:
    """Run all stages; print and write a row for each as it ends. Return the exit status: 1 if a stage failed."""
    clone = find_clone(reference) if reference else None
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    failed = []
    with write_errors(folder / FILE), (folder / FILE).open("w", encoding="utf-8") as file:
        for row in rows_of(list(STAGES), folder, clone):
            file.write(json.dumps(row) + "\n")
            file.flush()
            details = row["reason"] or ", ".join(f"{name} {_short(value)}" for name, value in row["values"].items())
            print(f"{row['result']}  {row['stage']}, {row['seconds']:.1f} s: {details}", flush=True)
            failed += [row["stage"]] * (row["result"] == FAILED)
    print(f"{len(STAGES) - len(failed)} of {len(STAGES)} stages without failure; written to {folder / FILE}")
    return int(bool(failed))


def rows_of(names: list[str], folder: Path, clone: Clone | None) -> Iterator[Row]:
    """Yield the row of each stage. They share a process until one fails: the next gets a new device and process."""
    names = list(names)
    while names:
        results, sender = gpu_speed.PROCESSES.Pipe(duplex=False)
        process = gpu_speed.PROCESSES.Process(target=work, args=(sender, names, folder, clone))
        process.start()
        sender.close()
        try:
            failed = False
            while names and not failed:
                row = _next_row(results, process, names.pop(0))
                failed = row["result"] == FAILED
                yield row
        finally:
            process.kill()  # one that has ended may be held for minutes by the compiler's own processes
            process.join()


def work(results: Connection, names: list[str], folder: Path, clone: Clone | None) -> None:
    """Run the stages in this process, up to one that fails."""
    lab = Lab(choose_device(), folder, clone)
    for name in names:
        row = run_stage(name, lab)
        results.send(row)
        if row["result"] == FAILED:
            return


def run_stage(name: str, lab: Lab) -> Row:
    """Return the row of a stage: its name, result, seconds, values by name, and why it was skipped or failed."""
    started = time.monotonic()
    result, values, reason = PASSED, {}, ""
    try:
        values = STAGES[name].run(lab)
    except Skipped as error:
        result, reason = SKIPPED, str(error)
    except Exception as error:  # any error is the result of this stage
        traceback.print_exc(file=sys.stderr)
        result, reason = FAILED, f"{type(error).__name__}: {first_line(error, width=500)}"
    return _row(name, result, time.monotonic() - started, values, reason)


def _next_row(results: Connection, process: BaseProcess, name: str) -> Row:
    """Return the next row that the process sends, or one that says that it has ended or takes too long."""
    started, limit = time.monotonic(), STAGES[name].limit
    try:
        if results.poll(limit):
            return results.recv()
        reason = f"no result within {limit} s"
    except EOFError:
        process.join()
        reason = f"its process ended with status {process.exitcode}"
    return _row(name, FAILED, time.monotonic() - started, {}, reason)


def _row(name: str, result: str, seconds: float, values: dict[str, Any], reason: str) -> Row:
    return {"stage": name, "result": result, "seconds": round(seconds, 2), "values": values, "reason": reason}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    cli.run(main)
