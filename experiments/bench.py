"""What a training step of each method costs on this machine, against cross-entropy's, on made-up images.

A step is everything that a run does for one batch: the views that the method asks for, forward and backward passes,
the optimiser. The methods take turns, several times over, so that a machine whose speed drifts does so for all; the
ratio is taken within each turn. Nothing is tracked; the table goes to RESULTS_DIR/bench/.
"""

import argparse
import csv
import io
import time
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cskd import cli
from cskd.data.store import Dataset, ImageSplit
from cskd.files import writing, written_aside
from cskd.methods import METHODS, SUMS_OF_THE_PAPER, build_method
from cskd.models import ARCHITECTURES
from cskd.precision import resolve
from cskd.training import Trainer
from experiments.assemble import assemble, initialised_model
from experiments.environment import choose_device, describe, use_repeatable_kernels
from experiments.plan import ALL
from experiments.recipe import Settings, load_settings, recipe_names
from experiments.spec import make_spec

BASELINE = "cross-entropy"
PHOTO = (375, 500)  # height and width of a made-up photograph, as CUB's and Dogs' are
CLASSES = 20


@dataclass
class Measured:
    """One method's turns. seconds: of a step, one an uncounted first turn left out."""

    dataset: str
    architecture: str
    method: str
    batch_size: int
    seconds: list[float] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", default=["cifar100"], help="default cifar100")
    parser.add_argument("--architectures", nargs="+", metavar="NAME", default=["resnet18"], help="default resnet18")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all, and the paper's sums")
    parser.add_argument("--profile", help="paper, mini, demo: a profile of the recipes (default: their own)")
    parser.add_argument("--turns", type=cli.positive, default=5, help="counted turns of a method (default 5)")
    parser.add_argument("--steps", type=cli.positive, default=2, help="steps of a turn (default 2)")
    options = parser.parse_args(arguments)
    everything = [*METHODS, *SUMS_OF_THE_PAPER]
    asked = everything if options.methods in (None, [ALL]) else options.methods
    methods = [name for name in dict.fromkeys(asked) if name != BASELINE]
    for name in methods:
        build_method(name)
    for name in options.datasets:
        cli.known("dataset", name, recipe_names())
    for name in options.architectures:
        cli.known("architecture", name, ARCHITECTURES)
    loaded = {name: load_settings(name, options.profile) for name in options.datasets}
    console = Console()
    results = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        rounds = len(loaded) * len(options.architectures) * (1 + options.turns)
        task = progress.add_task("bench", total=rounds)
        for name, (profile, settings) in loaded.items():
            for architecture in options.architectures:
                group = _group(name, profile, settings, settings.trained(architecture), methods, options.steps)
                for turn in range(1 + options.turns):
                    for measured, trainer in group:
                        seconds = _turn(trainer, turn) / len(trainer.loader)
                        if turn:  # the first one is for allocations and caches
                            measured.seconds.append(seconds)
                    progress.advance(task)
                rows = [measured for measured, _ in group]
                console.print(_table(rows, profile))
                results += [(profile, row, rows[0]) for row in rows]
    path = cli.results_dir() / "bench" / "steps.csv"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file:
        file.write(_csv(results).encode())
    console.print(f"written to {path}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _group(
    name: str, profile: str, settings: Settings, architecture: str, methods: list[str], steps: int
) -> list[tuple[Measured, Trainer]]:
    """A trainer for each method, cross-entropy's first, on made-up images of the recipe's kind."""
    dataset = made_up(name, settings, steps)
    own = settings.model_copy(update={"subset": None})
    device = choose_device()
    precision = resolve(settings.precision, device)
    use_repeatable_kernels(precision)
    group = []
    for method in [BASELINE, *methods]:
        spec = make_spec(name, dataset, profile, own, architecture, method, seed=0)
        teacher = initialised_model(spec.teacher, CLASSES) if spec.teacher else None
        trainer = assemble(spec, dataset, device, precision, teacher=teacher)
        group.append((Measured(name, architecture, method, settings.batch_size), trainer))
    return group


def made_up(name: str, settings: Settings, steps: int) -> Dataset:
    """Noise in the size of the recipe's images: as many as ``steps`` batches need."""
    inputs = settings.inputs
    small = inputs.train == "pad-crop"
    height, width = (inputs.image_size, inputs.image_size) if small else PHOTO
    random = np.random.default_rng(0)

    def split(count: int) -> ImageSplit:
        pixels = random.integers(0, 256, size=3 * count * height * width, dtype=np.uint8)
        return ImageSplit(pixels, np.arange(count) % CLASSES, np.full((count, 2), (height, width), dtype=np.int32))

    return Dataset(
        name=name,
        classes=tuple(map(str, range(CLASSES))),
        train=split(max(CLASSES, steps * settings.batch_size)),
        test=split(CLASSES),
        digest="made up",
        complete=False,
        source="made up",
        short_side=min(height, width),
    )


def _turn(trainer: Trainer, epoch: int) -> float:
    """Seconds of one epoch over the made-up images. Its metrics are read at the end, which waits for the device."""
    started = time.perf_counter()
    trainer.train_epoch(epoch)
    return time.perf_counter() - started


def _ratios(row: Measured, baseline: Measured) -> np.ndarray:
    return np.array(row.seconds) / np.array(baseline.seconds)


def _table(rows: list[Measured], profile: str) -> Table:
    about = describe(choose_device(), "")
    title = f"{rows[0].dataset} ({profile}), {rows[0].architecture}, batch {rows[0].batch_size}, {about['machine']}"
    table = Table("method", title=title, title_justify="left")
    for heading in ("ms a step", "images/s", "x cross-entropy", "from", "to"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratios, seconds = _ratios(row, rows[0]), float(np.median(row.seconds))
        numbers = [f"{1000 * seconds:.0f}", f"{row.batch_size / seconds:.0f}"]
        table.add_row(row.method, *numbers, *(f"{f(ratios):.2f}" for f in (np.median, np.min, np.max)))
    return table


def _csv(results: list[tuple[str, Measured, Measured]]) -> str:
    """A row a method: medians over the turns, the ratio's extremes, and what it was measured on."""
    about = describe(choose_device(), "")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        *("dataset", "profile", "architecture", "method", "batch_size", "turns", "seconds_per_step"),
        *("images_per_second", "ratio", "ratio_min", "ratio_max"),
        *("machine", "device", "torch", "git_commit", "git_dirty"),
    ])  # fmt: skip
    for profile, row, baseline in results:
        ratios, seconds = _ratios(row, baseline), float(np.median(row.seconds))
        writer.writerow([
            *(row.dataset, profile, row.architecture, row.method, row.batch_size, len(row.seconds)),
            *(f"{seconds:.6f}", f"{row.batch_size / seconds:.2f}"),
            *(f"{f(ratios):.4f}" for f in (np.median, np.min, np.max)),
            *(about["machine"], about["device"], about["packages"]["torch"], about["git_commit"], about["git_dirty"]),
        ])  # fmt: skip
    return text.getvalue()


if __name__ == "__main__":
    cli.run(main)
