"""The fork server, and the workers that it forks: ``python -m experiments.launch.forked_worker FILE_DESCRIPTOR``.

It imports everything that a worker needs, starts no thread and uses no GPU: neither survives a fork.
"""

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import scipy.stats  # noqa: F401 - the evaluation at the end of a run needs it
import torch._dynamo  # noqa: F401 - torch imports it with the first optimizer, which takes seconds

from cskd.utils import cli
from experiments.launch import worker
from experiments.launch.fork_server import ForkRequest
from experiments.runs.source import source_at_start


def main() -> int:
    source_at_start()  # of the code that is imported now, whatever is edited while runs are trained
    server = os.getpid()
    _handle_signals(signal.SIG_IGN)  # the server ends with its launcher
    request = serve(Connection(int(sys.argv[1])))
    if request is None:
        return 0
    _handle_signals(signal.default_int_handler)
    os.setsid()
    with request.log.open("ab") as log:
        for output in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), output.fileno())
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[1:] = [*request.arguments, "--launcher", str(server)]
    return worker.main()


def _handle_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def serve(connection: Connection) -> ForkRequest | None:
    """Answer the launcher until it has ended, and return None. In each forked process, return its request."""
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return None
        try:
            answer = os.fork() if isinstance(request, ForkRequest) else _exit_status(request)
        except OSError as error:  # such as: no more processes
            answer = error
        if isinstance(request, ForkRequest) and answer == 0:
            connection.close()
            return request
        with suppress(OSError):  # the launcher has ended meanwhile
            connection.send(answer)


def _exit_status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    try:
        cli.run(main)
    except SystemExit as end:
        # Python's clean-up takes a second of a core after each run, and the next run waits for it. If the launcher has
        # died, the workers train on until this process, their parent, has ended.
        for output in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):  # a full disk
                output.flush()
        os._exit(end.code or 0)
