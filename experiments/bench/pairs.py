"""Our step and another's, turn by turn, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from experiments.bench.ours import TimedTrainer
from experiments.bench.tables import Measured, about, numbers_table, ratios

METHODS = ("cross-entropy", "cs-kd")


@dataclass
class Pair:
    """Our step and the other's of one method. time_reference: as Ours.turn."""

    ours: TimedTrainer
    time_reference: Callable[[int], float]
    theirs: list[float] = field(default_factory=list)

    @property
    def measured(self) -> Measured:
        return self.ours.measured


def take_turns(pairs: list[Pair], turns: int, advance: Callable[[], None]) -> None:
    """An uncounted turn of each for allocations and caches, then the counted ones. Never two at once."""
    for turn in range(1 + turns):
        for pair in pairs:
            seconds = pair.ours.turn(turn), pair.time_reference(turn)
            if turn:
                pair.measured.seconds.append(seconds[0])
                pair.theirs.append(seconds[1])
        advance()


def table_of(pairs: list[Pair], theirs: str) -> Table:
    table = numbers_table(pairs[0].measured, ("ms a step, ours", theirs, "x ours", "from", "to"))
    for pair in pairs:
        seconds = (pair.measured.median, median(pair.theirs))
        times = ratios(pair.theirs, pair.measured.seconds)
        table.add_row(
            pair.measured.method, *(f"{1000 * one:.0f}" for one in seconds), *(f"{ratio:.2f}" for ratio in times)
        )
    return table


def row_of(pair: Pair, theirs: str) -> dict[str, Any]:
    """ratio: of their seconds to ours. precision, compiled: ours."""
    middle, least, most = ratios(pair.theirs, pair.measured.seconds)
    return {
        **pair.measured.cell(),
        "seconds_per_step": f"{pair.measured.median:.6f}",
        f"seconds_per_step_{theirs}": f"{median(pair.theirs):.6f}",
        "ratio": f"{middle:.4f}",
        "ratio_min": f"{least:.4f}",
        "ratio_max": f"{most:.4f}",
        **about(pair.measured),
    }
