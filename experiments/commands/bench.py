"""What training costs on this machine, in up to six parts.

steps: a step of each method, against cross-entropy's, and against what the device can do; what of it is input.
pipelines: a step of cross-entropy and of cs-kd as this suite trains, against the conventional pipeline's: images one
by one, by torchvision in worker processes, in fp32, not compiled.
reference: the same, against the released code's own training loop, run from a clone of it: CIFAR-100, ResNet-18.
memory: the peak of a step of each method.
run: a whole run of both as a user starts it: until the first step, the first step, evaluation, tracking's share.
profile: one epoch of both: where the time goes.

A step is everything that a run does for one batch: the views that the method asks for, forward and backward passes,
the optimiser. What is compared takes turns, several times over, so that a machine whose speed drifts does so for all;
the ratio is taken within each turn. Nothing of it is tracked; the tables go to RESULTS_DIR/bench/, and with --keep to
results/measured/ as well.

Images are made up. run and profile have prepared ones: of digits; of --datasets where --parts names them.
"""

import argparse

from rich.console import Console
from rich.progress import Progress

from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.models import ARCHITECTURES
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.bench import epoch_profile, memory, pipelines, reference, steps
from experiments.bench import whole_run as run
from experiments.bench.files import MEASURED, keep
from experiments.bench.images import prepared
from experiments.bench.tables import BASELINE, Cell
from experiments.commands.options import add_settings_arguments, method_or_all
from experiments.config.grid import ALL, check_not_replaced
from experiments.config.recipe import load_settings, recipe_names
from experiments.runs.environment import choose_device

PARTS = ("steps", "pipelines", "memory", "run", "profile", "reference")
PREPARED = ("run", "profile")  # parts that need prepared images
FILES = {"profile": ("profile", "operators")}  # of a part, where it has others than one of its own name
EMBEDDED = "digits"  # the dataset of those
STEPS = {"cpu": 2, "cuda": 20}  # that a turn counts: on a GPU they are so short that starting would count as well


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    parts = options.parts or [part for part in PARTS if part != "reference" or options.reference]
    for part in parts:
        cli.check_choice("part", part, PARTS)
    everything = [*METHODS, *PAPER_COMPOSITES]
    asked = everything if options.methods in (None, [ALL]) else options.methods
    methods = [name for name in dict.fromkeys(asked) if name != BASELINE]
    for name in methods:
        build_method(name)
    overrides = tuple(options.overrides)
    cells = _cells(options.datasets or ["cifar100"], options.profile, options.architectures, overrides)
    made_up = [(*cell[:2], cell[2].model_copy(update={"subset": None}), cell[3]) for cell in cells]
    real = cells if options.parts and options.datasets else _cells([EMBEDDED], None, None, overrides)
    cli.check_writable(RESULTS_DIR=cli.results_dir())
    if set(parts) & set(PREPARED):
        for name, _, settings, _ in real:
            prepared(name, settings)
    if "reference" in parts:
        if not options.reference:
            raise UserError("the released code is measured from a clone of it: give REFERENCE=<folder>")
        clone = reference.Clone.at(options.reference)
        network = reference.settings_of_theirs(overrides)

    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        turns, shown = (options.turns, options.steps), (console, progress)
        measures = {
            "steps": lambda: steps.measure(made_up, methods, *turns, *shown),
            "pipelines": lambda: pipelines.measure(made_up, *turns, *shown),
            "memory": lambda: memory.measure(made_up, methods, *shown),
            "run": lambda: run.measure(real, overrides, *shown),
            "profile": lambda: epoch_profile.measure(real, *shown),
            "reference": lambda: reference.measure(clone, network, *turns, *shown),
        }
        for part in PARTS:
            if part in parts:
                measures[part]()
                for name in FILES.get(part, (part,)) if options.keep else ():
                    keep(name, MEASURED, console)
    return 0


def _cells(
    datasets: list[str], profile: str | None, architectures: list[str] | None, overrides: tuple[str, ...]
) -> list[Cell]:
    for name in datasets:
        cli.check_choice("dataset", name, recipe_names())
    for name in architectures or ():
        cli.check_choice("architecture", name, ARCHITECTURES)
    cells = []
    for name in datasets:
        own, settings = load_settings(name, profile, overrides)
        check_not_replaced(tuple(architectures or ()), own, {name: settings})
        cells += [(name, own, settings, settings.resolve_architecture(one)) for one in architectures or ["resnet18"]]
    return cells


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help=f"{', '.join(PARTS)} (default: all; the last with a clone)"
    )
    parser.add_argument("--reference", metavar="FOLDER", help="a clone of the released code, github.com/alinlab/cs-kd")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="default cifar100, and digits")
    parser.add_argument("--architectures", nargs="+", metavar="NAME", help="default resnet18")
    parser.add_argument(
        "--methods",
        type=method_or_all,
        nargs="+",
        metavar="NAME",
        help="of steps and memory; default: all, and the paper's sums",
    )
    add_settings_arguments(parser)
    parser.add_argument("--turns", type=cli.positive, default=5, help="counted turns of each (default 5)")
    parser.add_argument(
        "--steps",
        type=cli.positive,
        default=STEPS[choose_device().type],
        help=f"counted steps of a turn (default {STEPS['cpu']}, on a GPU {STEPS['cuda']})",
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"put the rows into {MEASURED} as well, in the place of this machine's"
    )
    return parser
