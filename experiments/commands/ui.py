"""Serve the MLflow UI for what is tracked, on this machine only."""

import os
import subprocess
import sys
from contextlib import suppress

import psutil

from cskd.utils import cli
from cskd.utils.errors import UserError, without_password
from experiments.commands.serving import HOST, check_port_free, port
from experiments.tracking.store import is_server, open_store

END_SECONDS = 5  # that the server has for what it is asked at the moment


def main() -> int:
    parser = cli.Parser(prog="python -m experiments ui", description=__doc__)
    parser.add_argument("--port", type=port, default=5000)
    arguments = parser.parse_args()
    uri = cli.tracking_uri()
    if is_server(uri):
        print(f"MLFLOW_TRACKING_URI is a server with a UI of its own: {without_password(uri)}")
        return 0
    open_store(uri)
    check_port_free(arguments.port)
    print(f"the MLflow UI is at http://{HOST}:{arguments.port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(arguments.port)]
    # The address by the environment: it may have a password, and command lines are for all to read.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    with subprocess.Popen([*command, "--workers", "1"], env=environment) as server:
        try:
            server.wait()
        finally:
            _end_children()
    # Its exit status is 0 whatever has happened.
    raise UserError("the MLflow server has ended by itself: what it said is above")


def _end_children() -> None:
    """End what this process has started, and what that has: a signal may have come to this process alone."""
    family = psutil.Process().children(recursive=True)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    for one in psutil.wait_procs(family, timeout=END_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
