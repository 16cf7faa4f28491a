"""Strikes: a process harms itself, or its launcher, at a chosen call of a function.

Python imports this module at the start of every process that has its folder on PYTHONPATH. Environment variables:

STRIKES: "module:function:n:when:action:target ..."
    function: a dotted name. The strike happens at its n-th call.
    when: before or after the call, or a number of seconds after its beginning.
    action: the name of a signal, or of one of ``ACTIONS``.
    target: self, for every process; worker, for every process that trains a run; a seed, for the first worker of that
        seed's run; rank1, for this replica of a run on several devices; or parent: the first worker that makes the call
        harms its launcher.
STRUCK: each strike adds a line to this file before it acts.
MACHINE: the host name that the process sees, as if it ran on another machine. LEASE_SECONDS: how long run leases last.
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def set_weight(step, value: float) -> None:
    import torch  # noqa: PLC0415 - only in processes that train

    with torch.no_grad():
        step.model.head.weight[0, 0] = value


def allocate(size: int) -> None:
    import torch  # noqa: PLC0415

    torch.empty(size)


def limit_memory(*_) -> None:
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    limit = 1024 * int(used.split()[1]) + 2**24
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    allocate(2**26)


def slow_down(step, *_) -> None:
    """Let every later call of the step take a second longer."""
    call = type(step).__call__

    def slow(self, *arguments, **named):
        time.sleep(1)
        return call(self, *arguments, **named)

    type(step).__call__ = slow


# Each is called with the arguments of the function.
ACTIONS = {
    "HANG": lambda *_: time.sleep(3600),  # this thread only
    "EXIT": lambda *_: os._exit(0),
    "NAN": lambda step, *_: set_weight(step, float("nan")),
    "OVERFLOW": lambda step, *_: set_weight(step, 1e38),
    "NO_MEMORY_FOR_TORCH": lambda *_: allocate(2**50),
    "NO_MEMORY_FOR_PYTHON": lambda *_: bytearray(2**60),
    "MEMORY_LIMIT": limit_memory,
    "SLOW": slow_down,
}


class Striker(importlib.abc.MetaPathFinder):
    """Waits for the import of the module, and replaces the function by one that counts its calls."""

    def __init__(self, strike: str):
        self.strike = strike
        self.module, self.function, count, self.when, self.action, self.target = strike.split(":")
        self.count = int(count)

    def find_spec(self, name, path, target=None):
        if name != self.module or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_replace(module):
            load(module)
            self.replace(module)

        spec.loader.exec_module = load_and_replace
        return spec

    def replace(self, module) -> None:
        *owners, name = self.function.split(".")
        owner = functools.reduce(getattr, owners, module)
        original = getattr(owner, name)

        @functools.wraps(original)
        def counting(*arguments, **named):
            if not is_target(self.target):
                return original(*arguments, **named)
            self.count -= 1
            strikes = self.count == 0
            if strikes and self.when == "before":
                self.hit(*arguments)
            elif strikes and self.when != "after":
                threading.Timer(float(self.when), self.hit, arguments).start()
            result = original(*arguments, **named)
            if strikes and self.when == "after":
                self.hit(*arguments)
            return result

        setattr(owner, name, counting)

    def hit(self, *arguments) -> None:
        struck = Path(os.environ["STRUCK"])
        if self.target not in ("self", "worker"):
            try:
                struck.with_name(f"{struck.name} {self.strike}").touch(exist_ok=False)
            except FileExistsError:
                return
        with struck.open("a") as file:
            file.write(f"{time.time()} {self.strike}\n")
        if self.action in ACTIONS:
            ACTIONS[self.action](*arguments)
        else:
            os.kill(launcher() if self.target == "parent" else os.getpid(), signal.Signals[self.action])


def launcher() -> int:
    """Return the process that started the server that forked this worker."""
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def is_target(target: str) -> bool:
    if target in ("self", "parent"):
        return True
    if target.startswith("rank"):
        return os.environ.get("RANK") == target.removeprefix("rank")
    spec = Path(sys.argv[1] if len(sys.argv) > 1 else "", "spec.json")  # a worker's first argument is its run folder
    return spec.is_file() and (target == "worker" or json.loads(spec.read_text())["seed"] == int(target))


sys.meta_path[:0] = [Striker(strike) for strike in os.environ.get("STRIKES", "").split()]
if "MACHINE" in os.environ:
    socket.gethostname = lambda: os.environ["MACHINE"]
    from experiments.runs import lease

    lease.LEASE_SECONDS = float(os.environ["LEASE_SECONDS"])
