"""What training costs on this machine, on made-up images, in up to three parts.

steps: a step of each method, against cross-entropy's.
pipelines: a step of cross-entropy and of cs-kd as this suite trains, against the conventional pipeline's: images one
by one, by torchvision in worker processes, in fp32, not compiled.
reference: the same, against the released code's own training loop, run from a clone of it: CIFAR-100, ResNet-18.

A step is everything that a run does for one batch: the views that the method asks for, forward and backward passes,
the optimiser. What is compared takes turns, several times over, so that a machine whose speed drifts does so for all;
the ratio is taken within each turn. Nothing is tracked; the tables go to RESULTS_DIR/bench/.
"""

import argparse

from rich.console import Console
from rich.progress import Progress

from cskd import cli
from cskd.errors import UserError
from cskd.methods import METHODS, SUMS_OF_THE_PAPER, build_method
from cskd.models import ARCHITECTURES
from experiments.bench import pipelines, reference, steps
from experiments.execute import refuse_replaced
from experiments.options import add_settings
from experiments.plan import ALL
from experiments.recipe import load_settings, recipe_names

PARTS = ("steps", "pipelines", "reference")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    parts = options.parts or [part for part in PARTS if part != "reference" or options.reference]
    for part in parts:
        cli.known("part", part, PARTS)
    everything = [*METHODS, *SUMS_OF_THE_PAPER]
    asked = everything if options.methods in (None, [ALL]) else options.methods
    methods = [name for name in dict.fromkeys(asked) if name != steps.BASELINE]
    for name in methods:
        build_method(name)
    for name in options.datasets:
        cli.known("dataset", name, recipe_names())
    for name in options.architectures or ():
        cli.known("architecture", name, ARCHITECTURES)
    overrides = tuple(options.overrides)
    loaded = {name: load_settings(name, options.profile, overrides) for name in options.datasets}
    for name, (profile, settings) in loaded.items():
        refuse_replaced(tuple(options.architectures or ()), profile, {name: settings})
    if "reference" in parts:
        if not options.reference:
            raise UserError("the released code is measured from a clone of it: give REFERENCE=<folder>")
        clone = reference.Clone.at(options.reference)
        network = reference.settings_of_theirs(overrides)

    console = Console()
    cells = [
        (name, profile, settings.model_copy(update={"subset": None}), settings.trained(architecture))
        for name, (profile, settings) in loaded.items()
        for architecture in options.architectures or ["resnet18"]
    ]
    with Progress(console=console, disable=not console.is_terminal) as progress:
        if "steps" in parts:
            steps.measure(cells, methods, options.turns, options.steps, console, progress)
        if "pipelines" in parts:
            pipelines.measure(cells, options.turns, options.steps, console, progress)
        if "reference" in parts:
            reference.measure(clone, network, options.turns, options.steps, console, progress)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="steps, pipelines, reference (default: all; the last with a clone)"
    )
    parser.add_argument("--reference", metavar="FOLDER", help="a clone of the released code, github.com/alinlab/cs-kd")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", default=["cifar100"], help="default cifar100")
    parser.add_argument("--architectures", nargs="+", metavar="NAME", help="default resnet18")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of steps; default: all, and the paper's sums")
    add_settings(parser)
    parser.add_argument("--turns", type=cli.positive, default=5, help="counted turns of each (default 5)")
    parser.add_argument("--steps", type=cli.positive, default=2, help="counted steps of a turn (default 2)")
    return parser


if __name__ == "__main__":
    cli.run(main)
