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


def test_sigterm_to_ui_stops_its_server(tmp_path):
    port = free_port()
    process = Place(tmp_path).start("experiments ui", "--port", str(port))
    try:
        wait_until_listening(process, port)
        servers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert servers
        assert not [server for server in servers if server.is_running()]
    finally:
        if process.poll() is None:
            kill_family(process)
