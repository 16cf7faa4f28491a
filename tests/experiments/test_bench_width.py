"""The bench's widest tables on a terminal of 80 columns."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.bench import steps
from experiments.bench import whole_run as run
from experiments.bench.tables import Measured

METHODS = ["cross-entropy", "label-smoothing+cs-kd"]
RUN = (
    "start_to_first_step_seconds set_up_seconds first_step_seconds evaluation_seconds_per_1000_images run_seconds "
    "tracking_share"
)


def measured(method: str) -> Measured:
    return Measured("tinyimagenet", "paper", "resnet18", method, 128, "fp32", False, [3.4567])


def of_steps():
    shares = {"matmul_share": lambda: (0.456,), "input_share": lambda: (0.123,)}
    return steps._table([SimpleNamespace(measured=measured(method), **shares) for method in METHODS])


def of_run():
    return run._table([(measured(method), dict.fromkeys(RUN.split(), "123.45")) for method in METHODS])


@pytest.mark.parametrize(("table", "number"), [(of_steps, "3457"), (of_run, "123.45")])
def test_methods_and_numbers_are_whole_on_80_columns(table, number):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table())
    rows = [line.split() for line in captured.get().splitlines() if line.startswith("│")]
    assert [(row[1], row[3]) for row in rows] == [(method, number) for method in METHODS]
    assert "…" not in captured.get()
