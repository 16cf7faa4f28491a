"""What is served has its port, and ends with its command."""

import signal
import socket

import psutil
import pytest
from faults.servers import end, free_port, listening
from place import Place

MODULES = ("experiments ui", "experiments dashboard")


@pytest.mark.parametrize("module", MODULES)
def test_a_port_that_is_taken_is_named_and_nothing_is_said_to_be_there(call, tmp_path, module):
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "journal.log").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        message = f"error: port {number} cannot be used (Address already in use): give another one, as PORT=<number>\n"
        assert call(module, "--port", str(number)) == (2, "", message)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "9" * 5000])
def test_a_number_that_no_port_has_is_refused(call, module, port):
    status, output, errors = call(module, f"--port={port}")
    assert (status, output) == (2, "")
    assert f"{port} is not a port: give one from 1 to 65535" in errors
    assert errors.count("\n") == 1


def test_a_ui_that_is_ended_alone_takes_its_server_with_it(tmp_path):
    port = free_port()
    process = Place(tmp_path).start("experiments ui", "--port", str(port))
    try:
        listening(process, port)
        servers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert servers
        assert not [one for one in servers if one.is_running()]
    finally:
        if process.poll() is None:
            end(process)
