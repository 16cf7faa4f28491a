"""The commands that serve a web page: their port, and the end of their processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from faults.servers import free_port

from experiments.commands import serving, ui


@pytest.mark.parametrize(
    ("command", "name"), [("experiments ui", "the MLflow UI"), ("experiments dashboard", "optuna-dashboard")]
)
def test_server_needs_a_free_port_and_ends_with_one_line(call, uri, tmp_path, monkeypatch, command, name):
    """In place of MLflow's server, which takes long to start, Python's own is started."""
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "journal.log").touch()
    with socket.create_server((serving.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        message = f"error: port {port} cannot be used (Address already in use): give another one, as PORT=<number>\n"
        assert call(command, "--port", str(port)) == (2, "", message)
    port, servers = free_port(), []
    popen, stand_in = subprocess.Popen, (sys.executable, "-m", "http.server", "--bind", serving.HOST, str(port))
    monkeypatch.setattr(ui.subprocess, "Popen", lambda command, **options: popen(stand_in, **options))

    def stop_when_it_listens() -> None:
        while not serving.is_listening(port):
            time.sleep(0.1)
        time.sleep(0.5)  # for the command to notice it
        servers.extend(psutil.Process().children())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_it_listens, daemon=True).start()
    status, output, errors = call(command, "--port", str(port))
    assert (status, errors) == (0, "")
    *_, address, stopped = output.splitlines()
    assert f" at http://127.0.0.1:{port} (Ctrl-C stops it)." in address
    assert stopped == f"stopped: {name}"
    assert not [server for server in servers if server.is_running() and "http.server" in server.cmdline()]


def test_ui_of_a_server_that_does_not_answer_is_an_error_in_one_line(call, monkeypatch):
    address = f"http://user:secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    status, output, errors = call("experiments ui")
    assert (status, output, errors.count("\n"), "secret" in errors) == (2, "", 1, False)
    assert "cannot list the experiments (" in errors
