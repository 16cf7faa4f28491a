"""On PYTHONPATH, makes a process send a signal at the n-th call of a function, or run as on another machine.

STRIKES: "module:function:n:when:action:target ..."
    function: a dotted name, or empty for the import of the module. when: before or after the call.
    action: the signal's name, or HANG: the calling thread sleeps while the other threads continue.
    target: self; worker, only if it trains a run; parent, once; or a seed: the worker of that seed's run, once.
STRUCK: the file in which each strike writes a line before it acts.
MACHINE: the name of the host. LEASE_SECONDS: the duration of run leases.
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


class Striker(importlib.abc.MetaPathFinder):
    """Waits for the import of the module, and replaces the function by one that counts its calls."""

    def __init__(self, strike: str):
        self.strike = strike
        self.module, self.function, count, self.when, self.action, self.target = strike.split(":")
        self.count = int(count)

    def find_spec(self, name, path, target=None):
        if name != self.module or self not in sys.meta_path or not is_target(self.target):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_replace(module):
            if not self.function:
                self.hit()
            load(module)
            if self.function:
                self.replace(module)

        spec.loader.exec_module = load_and_replace
        return spec

    def replace(self, module) -> None:
        *owners, name = self.function.split(".")
        owner = functools.reduce(getattr, owners, module)
        original = getattr(owner, name)

        @functools.wraps(original)
        def counting(*arguments, **named):
            self.count -= 1
            if self.count == 0 and self.when == "before":
                self.hit()
            result = original(*arguments, **named)
            if self.count == 0 and self.when == "after":
                self.hit()
            return result

        setattr(owner, name, counting)

    def hit(self) -> None:
        struck = Path(os.environ["STRUCK"])
        if self.target not in ("self", "worker"):
            try:
                struck.with_name(f"{struck.name}.{self.target}").touch(exist_ok=False)
            except FileExistsError:
                return
        with struck.open("a") as file:
            file.write(f"{time.time()} {self.strike}\n")
        if self.action == "HANG":
            time.sleep(3600)
        os.kill(os.getppid() if self.target == "parent" else os.getpid(), signal.Signals[self.action])


def is_target(target: str) -> bool:
    if target in ("self", "parent"):
        return True
    if "worker" not in sys.orig_argv:
        return False
    folder = Path(sys.orig_argv[sys.orig_argv.index("worker") + 1])
    return target == "worker" or json.loads((folder / "spec.json").read_text())["seed"] == int(target)


sys.meta_path[:0] = [Striker(strike) for strike in os.environ.get("STRIKES", "").split()]
if "MACHINE" in os.environ:
    socket.gethostname = lambda: os.environ["MACHINE"]
    from experiments.runs import lease

    lease.LEASE_SECONDS = float(os.environ["LEASE_SECONDS"])
