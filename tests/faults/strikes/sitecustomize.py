"""On PYTHONPATH, this sends a signal at the n-th call of a function, in every process that calls it so often.

STRIKES: "module:function:n:when:signal:whom ..."; function may be a dotted name, or empty: when the module is imported.
when: before or after the call. whom: self; worker: self, of a run's process alone; or parent, which is struck once, by
whichever child comes first. A strike is first noted as a line of the file STRUCK.
"""

import functools
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path


class Striker(importlib.abc.MetaPathFinder):
    """Waits for the module to be imported, to put the counting function in the place of its own."""

    def __init__(self, strike: str):
        self.strike = strike
        self.module, self.function, count, self.when, number, self.whom = strike.split(":")
        self.count, self.number = int(count), signal.Signals[number]

    def find_spec(self, name, path, target=None):
        if self.whom == "worker" and "experiments worker" not in sys.orig_argv:
            return None
        if name != self.module or self not in sys.meta_path:
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
        try:
            with Path(os.environ["STRUCK"]).open("x" if self.whom == "parent" else "a") as file:
                file.write(f"{time.time()} {self.strike}\n")
        except FileExistsError:
            return
        os.kill(os.getppid() if self.whom == "parent" else os.getpid(), self.number)


os.cpu_count = lambda: 1  # a run has as many threads whatever the number of workers: they are an order of additions
sys.meta_path[:0] = [Striker(strike) for strike in os.environ.get("STRIKES", "").split()]
