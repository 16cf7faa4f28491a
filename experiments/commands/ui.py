"""Serve the MLflow UI on this machine only."""

import os
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import psutil

from cskd.utils import cli
from cskd.utils.databases import UI_PORT, is_server, print_address
from cskd.utils.errors import UserError, without_password
from experiments.commands.serving import HOST, check_port_free, is_listening, port, until_ctrl_c
from experiments.tracking.store import open_store, store_errors
from experiments.tracking.views import view_links

END_SECONDS = 5  # for the server to finish its current requests


def main() -> int:
    parser = cli.Parser(prog="python -m experiments ui", description=__doc__)
    parser.add_argument("--port", type=port, default=UI_PORT)
    parser.add_argument("--open", action="store_true", help="open the newest experiment in a browser")
    arguments = parser.parse_args()
    uri = cli.tracking_uri()
    address = without_password(uri).rstrip("/") if is_server(uri) else f"http://{HOST}:{arguments.port}"
    with store_errors(uri, "list the experiments"):
        links = view_links(open_store(uri), address)
    if is_server(uri):
        print(f"MLFLOW_TRACKING_URI is a server with its own UI: {address}")
        for views in links.values():
            print(next(iter(views.values())))
        return 0
    check_port_free(arguments.port)
    print_address("MLFLOW_TRACKING_URI", uri)
    with until_ctrl_c("the MLflow UI"):
        _serve(uri, arguments.port, lambda: _show(links, arguments.port, arguments.open))
    return 0


def _show(links: dict[str, dict[str, str]], number: int, open_newest: bool) -> None:
    """Print the links to the views of each experiment."""
    for experiment, views in links.items():
        print(experiment)
        for view, link in views.items():
            print(f"  {view:<8} {link}")
    print(f"The MLflow UI is at http://{HOST}:{number} (Ctrl-C stops it).", flush=True)
    if open_newest and links:
        webbrowser.open(next(iter(next(iter(links.values())).values())))


def _serve(uri: str, number: int, on_start: Callable[[], None]) -> None:
    """Run the MLflow server, and call ``on_start`` when it answers. Raises UserError if it ends by itself."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(number), "--workers", "1"]
    # The address may contain a password, and every user can read command lines: it goes into the environment.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            while server.poll() is None and not is_listening(number):
                time.sleep(0.2)
            if server.poll() is None:
                on_start()
            server.wait()
        finally:
            _stop(server)
        log.seek(0)
        last = ([line.strip() for line in log if line.strip()] or ["no message"])[-1]
        raise UserError(f"the MLflow server stopped unexpectedly ({last}): try again, or another PORT")


def _stop(server: subprocess.Popen) -> None:
    """Stop the server and its workers: a signal may have reached this process only."""
    if server.poll() is not None:
        return
    process = psutil.Process(server.pid)
    family = [*process.children(recursive=True), process]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(family, timeout=END_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
