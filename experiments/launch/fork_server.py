"""The launcher's side of the fork server, which starts the workers of this machine.

The server is a process that has imported what training needs, and forks itself for each run: a fork trains within a
fraction of a second, while importing torch takes seconds. Each run still has a process of its own, so that a crash
ends one run only.

The server is a child of the launcher and the parent of the workers. It ends when the launcher ends in any way, since
that closes their connection. The workers then notice that their parent has changed, and stop.
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

from experiments.launch.allocation import allocation


@dataclass(frozen=True)
class ForkRequest:
    """What a worker gets: its arguments, all its environment variables, and the file of its output."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path


class ForkServer:
    """The server. ``fork`` and ``poll`` raise OSError if it has died."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.launch.forked_worker", str(theirs.fileno())],
                cwd=Path(__file__).parents[2],  # of the package experiments
                # One thread, so that no library starts others, which a fork would lose.
                env=os.environ | allocation() | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal reaches only the launcher
            )
        self.pid = self._process.pid
        self._connection = Connection(ours.detach())

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, request: ForkRequest) -> int:
        """Start a worker and return its process ID. The first call waits until the server has imported everything."""
        return self._ask(request)

    def poll(self, pid: int) -> int | None:
        """Return the exit status of a worker, minus the signal's number if a signal ended it; None while it runs."""
        return self._ask(pid)

    def _ask(self, request: ForkRequest | int) -> int | None:
        try:
            self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise OSError("the process that starts the workers has died") from error
        if isinstance(answer, OSError):
            raise answer
        return answer


@cache
def _server() -> ForkServer:
    return ForkServer()


def fork_server() -> ForkServer:
    """Return the server of this process; start it if there is none, or if it has died."""
    if not _server().is_alive():
        _server.cache_clear()
    return _server()
