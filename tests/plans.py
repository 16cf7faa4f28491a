"""Plans of runs that were made by hand."""

from experiments.config.spec import RunSpec
from experiments.runs.plan import Cell, Plan


def plan_of(*specs: RunSpec) -> Plan:
    """One cell with these seeds of it."""
    cell = Cell(
        name=specs[0].cell,
        key=specs[0].cell_key,
        order=0,
        comparable=specs[0].comparable,
        comparable_reason=specs[0].comparable_reason,
        runs={one.seed: one.run_key for one in specs},
    )
    return Plan(experiment="demo", grid="demo", title="A title", profile="demo", cells=[cell])
