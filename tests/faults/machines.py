"""Two machines that share a folder, as far as one machine can be two.

What a second machine has of its own is made so in its processes alone, by a ``sitecustomize`` on their PYTHONPATH: the
host's name, and the kernel's locks below RUNS_DIR, which are those of files that the other machine does not look at.
All else is real: the commands, the files, the times of the file system, the signals. A silence that counts as death
takes seconds in the place of a minute, on both machines. What a network file system adds (directories that are
remembered for a while) is not part of it.
"""

import os
from pathlib import Path

from place import ROOT, Place

HEARTBEAT_LIMIT = 4.0
OWN = """
import fcntl, hashlib, os, socket, sys
import experiments.runs.lease as lease

lease.HEARTBEAT_LIMIT, lease.BEAT_SECONDS = {limit}, 0.5
socket.gethostname = lambda: {name!r}
flock = fcntl.flock

def flock_of_this_machine(file, operation):
    path = os.path.realpath(getattr(file, "name", ""))
    if not path.startswith({shared!r}):
        return flock(file, operation)
    if not hasattr(file, "of_this_machine"):  # closed together with the file
        file.of_this_machine = open(os.path.join({locks!r}, hashlib.sha256(path.encode()).hexdigest()), "w")
    flock(file.of_this_machine, operation)

fcntl.flock = flock_of_this_machine

if "experiments worker" in sys.orig_argv:
    import importlib, json, signal, time
    folder = next(argument for argument in sys.orig_argv if argument.startswith({shared!r}))
    seed = json.load(open(folder + "/spec.json"))["seed"]
    slept = os.path.join({own!r}, "slept." + str(seed))
    if seed in {sleeps!r} and not os.path.exists(slept):
        module, owner, function, count = {sleeps!r}[seed]
        holder = importlib.import_module(module)
        holder = getattr(holder, owner) if owner else holder
        original, calls = getattr(holder, function), [0]

        def sleeps_first(*arguments, **options):
            calls[0] += 1
            if calls[0] == count:
                open(slept, "w").close()
                time.sleep(3600) if {hangs!r} else os.kill(os.getpid(), signal.SIGSTOP)
            return original(*arguments, **options)

        setattr(holder, function, sleeps_first)
"""


class Machine(Place):
    """A machine of that name, which shares the data, the runs and the tracking of a place."""

    def __init__(
        self, place: Place, name: str, sleeps: dict[int, tuple[str, str, str, int]] | None = None, hangs: bool = False
    ):
        """sleeps: seed -> (module, class in it or "", function, number of the call) before which the first worker of
        that seed falls asleep, as a whole (SIGSTOP); hangs: its training alone, and it still gives signs of life.
        """
        super().__init__(place.folder)
        self.own = place.folder / "machines" / name
        (self.own / "locks").mkdir(parents=True)
        message = {"limit": HEARTBEAT_LIMIT, "name": name, "shared": str(self.runs), "own": str(self.own)}
        message |= {"locks": str(self.own / "locks"), "sleeps": sleeps or {}, "hangs": hangs}
        (self.own / "sitecustomize.py").write_text(OWN.format(**message))
        self.environment = place.environment | {"PYTHONPATH": os.pathsep.join([str(self.own), str(ROOT)])}

    def has_slept(self, seed: int) -> bool:
        return (self.own / f"slept.{seed}").exists()


def holder_of(folder: Path) -> tuple[str, int] | None:
    """(machine, process) that hold a run, or that held it last."""
    holders = sorted(folder.glob("holder.*[0-9]"), key=lambda path: int(path.suffix[1:]))
    words = holders[-1].read_text().split() if holders else []
    return (words[0], int(words[-1])) if words else None
