"""The commands that serve a web page: their port, and the end of their processes."""

import signal
import socket

import psutil
import pytest
from faults.servers import free_port, kill_family, wait_until_listening
from place import Place

COMMANDS = ("experiments ui", "experiments dashboard")


@pytest.mark.parametrize("command", COMMANDS)
def test_port_in_use_is_an_error(call, tmp_path, command):
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "journal.log").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        message = f"error: port {number} cannot be used (Address already in use): give another one, as PORT=<number>\n"
        assert call(command, "--port", str(number)) == (2, "", message)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "9" * 5000])
def test_invalid_port_is_an_error(call, port):
    status, output, errors = call(COMMANDS[0], f"--port={port}")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"{port} is not a port: give one from 1 to 65535" in errors


@pytest.mark.parametrize(("command", "name"), [(COMMANDS[0], "the MLflow UI"), (COMMANDS[1], "optuna-dashboard")])
def test_server_prints_its_addresses_only_and_ends_with_one_line(tmp_path, uri, command, name):
    port, place = free_port(), Place(tmp_path)
    place.environment["OPTUNA_STORAGE"] = str(tmp_path / "journal.log")
    (tmp_path / "journal.log").touch()
    process = place.start(command, "--port", str(port))
    try:
        wait_until_listening(process, port)
        store, address = process.stdout.readline(), process.stdout.readline()
        servers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, f"stopped: {name}\n", "")
        assert store in (f"MLFLOW_TRACKING_URI: {uri}\n", f"OPTUNA_STORAGE: {tmp_path / 'journal.log'}\n")
        assert f" at http://127.0.0.1:{port} (Ctrl-C stops it)." in address
        assert not [server for server in servers if server.is_running()]
    finally:
        if process.poll() is None:
            kill_family(process)
