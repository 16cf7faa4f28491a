"""Serve the MLflow UI on this machine only."""

import os
import subprocess
import sys
from contextlib import suppress

import psutil

from cskd.utils import cli
from cskd.utils.errors import UserError, without_password
from experiments.commands.serving import HOST, check_port_free, port
from experiments.tracking.store import is_server, open_store

END_SECONDS = 5  # for the server to finish its current requests


def main() -> int:
    parser = cli.Parser(prog="python -m experiments ui", description=__doc__)
    parser.add_argument("--port", type=port, default=5000)
    arguments = parser.parse_args()
    uri = cli.tracking_uri()
    if is_server(uri):
        print(f"MLFLOW_TRACKING_URI is a server with its own UI: {without_password(uri)}")
        return 0
    open_store(uri)
    check_port_free(arguments.port)
    print(f"The MLflow UI is at http://{HOST}:{arguments.port} (Ctrl-C stops it).", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(arguments.port)]
    # The address may contain a password, and every user can read command lines: it goes into the environment.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    with subprocess.Popen([*command, "--workers", "1"], env=environment) as server:
        try:
            server.wait()
        finally:
            _stop_children()
    # The server exits with status 0 even after an error.
    raise UserError("the MLflow server stopped unexpectedly: see its messages above")


def _stop_children() -> None:
    """Stop the server and its workers: a signal may have reached this process only."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=END_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
