"""Two machines that share a folder, simulated on one.

The processes of a ``Machine`` see another host name, so that leases of the other machine's processes are judged by
their age alone. Leases expire after seconds. Everything else is real: commands, files, signals.
"""

import os
from pathlib import Path

from faults.disturbed import STRIKES
from filelock import SoftFileLease
from place import ROOT, Place

LEASE_SECONDS = 8.0


class Machine(Place):
    """Another machine with the data, runs and tracking store of a place.

    strikes: as in ``strikes/sitecustomize.py``, mostly with the seeds of runs as targets.
    """

    def __init__(self, place: Place, name: str, *strikes: str):
        super().__init__(place.folder)
        self.struck = place.folder / f"struck.{name}"
        self.environment = place.environment | {
            "PYTHONPATH": os.pathsep.join([str(STRIKES), str(ROOT)]),
            "STRIKES": " ".join(strikes),
            "STRUCK": str(self.struck),
            "MACHINE": name,
            "LEASE_SECONDS": str(LEASE_SECONDS),
        }

    def has_struck(self, seed: int) -> bool:
        return Path(f"{self.struck}.{seed}").exists()


def owner_of(folder: Path) -> tuple[str, int] | None:
    """Return (machine, process) that hold a run."""
    owner = SoftFileLease(folder / "lease").owner
    return (owner.hostname.partition("?")[0], owner.pid) if owner else None
