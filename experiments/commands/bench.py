"""Measure the cost of training on this machine, in parts.

steps: a step of each method, compared with cross-entropy and with the device's speed; the share of input.
pipelines: a step of cross-entropy and cs-kd, compared with torchvision's data pipeline (single images in worker
processes, fp32, not compiled).
reference: the same steps, compared with the released code's own training loop (CIFAR-100, ResNet-18) in a clone.
memory: the peak memory of a step of each method.
run: a whole run of both methods, as a user starts it: start, first step, evaluation, share of tracking.
profile: one epoch of both methods: time by phase and by operator.
waiting: what a user waits for: a demo, the start of a run, and tables and reports of made-up runs. Takes minutes.
gpu: each stage of training on its own, first whether it is correct, then how fast. The command fails if a stage does.

A step is everything that a run does for one batch: views, forward and backward passes, optimizer. Compared steps take
turns, several times, and ratios are computed within each turn, so that a change of the machine's speed affects both.
Nothing is tracked. Tables are written to RESULTS_DIR/bench/, and with --keep also to results/measured/.

The images are noise. Only run and profile use prepared images: those of --datasets if --parts is given, or of digits.
"""

import argparse
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.status import Status

from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import check_architecture
from cskd.train.trainer import Diverged
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.bench import epoch_profile, gpu, memory, pipelines, reference, results, steps, waiting, whole_run
from experiments.bench.clone import find_clone
from experiments.bench.images import prepared_images
from experiments.bench.results import BASELINE, MEASURED, Cell, Options
from experiments.config.grid import ALL, check_not_replaced
from experiments.config.recipe import load_settings, recipe_names
from experiments.launch.options import add_settings_arguments, method_or_all
from experiments.runs.environment import choose_device

PARTS = {
    "steps": steps,
    "pipelines": pipelines,
    "memory": memory,
    "run": whole_run,
    "profile": epoch_profile,
    "reference": reference,
    "waiting": waiting,
}
NEED_PREPARED_IMAGES = ("run", "profile")
STEPS = {"cpu": 2, "cuda": 20}  # counted steps in a turn; a GPU's are short


def main() -> int:
    arguments = _parser().parse_args()
    if "gpu" not in (arguments.parts or ()):
        return measure_parts(arguments)
    if len(arguments.parts) > 1:
        raise UserError("the part gpu runs alone: give PARTS=gpu")
    return gpu.run_stages(cli.results_dir() / "bench", arguments.reference)


def measure_parts(arguments: argparse.Namespace) -> int:
    """Measure the parts other than gpu, print their tables, and write their rows."""
    default = [part for part in PARTS if part != "waiting" and (part != "reference" or arguments.reference)]
    parts = arguments.parts or default
    for part in parts:
        cli.check_choice("part", part, PARTS)
    names = [*METHODS, *PAPER_COMPOSITES] if arguments.methods in (None, [ALL]) else arguments.methods
    methods = [name for name in dict.fromkeys(names) if name != BASELINE]
    for name in methods:
        build_method(name)
    overrides = tuple(arguments.overrides)
    cells = _cells(arguments.datasets or ["cifar100"], arguments.profile, arguments.architectures, overrides)
    prepared_cells = cells if arguments.parts and arguments.datasets else _cells(["digits"], None, None, overrides)
    noise_cells = [replace(cell, settings=cell.settings.model_copy(update={"subset": None})) for cell in cells]
    cells_of = {part: prepared_cells if part in NEED_PREPARED_IMAGES else noise_cells for part in parts}
    cells_of["waiting"] = _cells(["digits"], None, None, ())
    measures = {part: PARTS[part].measure for part in parts}
    cli.check_writable(RESULTS_DIR=cli.results_dir())
    if set(parts) & set(NEED_PREPARED_IMAGES):
        for cell in prepared_cells:
            prepared_images(cell)
    if "reference" in parts:
        if not arguments.reference:
            raise UserError("the released code is measured in a clone of it: give REFERENCE=<folder>")
        measures["reference"] = partial(reference.measure, find_clone(arguments.reference))
        cells_of["reference"] = [reference.reference_cell(overrides)]

    console = Console()
    for part in sorted(parts, key=list(PARTS).index):
        rows_by_file: dict[str, list[results.Row]] = {}
        for cell in cells_of[part]:
            with console.status("") as status:
                show = partial(_show, status, f"{part}: {cell.dataset}, {cell.architecture}")
                options = Options(methods, arguments.turns, arguments.steps, overrides, console, show)
                try:
                    measured = measures[part](cell, options)
                except Diverged as error:
                    raise UserError(f"{error}: change the settings (SET=...)") from error
            console.print(results.table(measured[part], PARTS[part].TABLE))
            for name, rows in measured.items():
                rows_by_file.setdefault(name, []).extend(rows)
        for name, rows in rows_by_file.items():
            results.write_rows(name, rows, console)
            if arguments.keep:
                results.store_measured(name, MEASURED, console)
    return 0


def _show(status: Status, label: str, text: str) -> None:
    status.update(f"{label}, {text}")


def _cells(
    datasets: list[str], profile: str | None, architectures: list[str] | None, overrides: tuple[str, ...]
) -> list[Cell]:
    for name in datasets:
        cli.check_choice("dataset", name, recipe_names())
    for name in architectures or ():
        check_architecture(name)
    cells = []
    for dataset in datasets:
        chosen, settings = load_settings(dataset, profile, overrides)
        check_not_replaced(tuple(architectures or ()), chosen, {dataset: settings})
        names = [settings.resolve_architecture(name) for name in architectures or ["resnet18"]]
        cells += [Cell(dataset, chosen, settings, name) for name in names]
    return cells


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m experiments bench", description=__doc__)
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="PART",
        help=f"{', '.join(PARTS)}, gpu (default: all but waiting and gpu, and reference with a clone)",
    )
    parser.add_argument("--reference", metavar="FOLDER", help="a clone of the released code, github.com/alinlab/cs-kd")
    parser.add_argument(
        "--datasets", nargs="+", metavar="NAME", help="default cifar100, and digits for run and profile"
    )
    parser.add_argument("--architectures", nargs="+", metavar="NAME", help="default resnet18")
    parser.add_argument(
        "--methods",
        type=method_or_all,
        nargs="+",
        metavar="NAME",
        help="for steps and memory; default: all methods and the paper's combinations",
    )
    add_settings_arguments(parser)
    parser.add_argument("--turns", type=cli.positive, default=5, help="counted turns of each method (default 5)")
    parser.add_argument(
        "--steps",
        type=cli.positive,
        default=STEPS[choose_device().type],
        help=f"counted steps in a turn (default {STEPS['cpu']}, on a GPU {STEPS['cuda']})",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help=f"also write the rows to {MEASURED}, replacing earlier rows of this machine",
    )
    return parser
