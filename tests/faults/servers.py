"""A real MLflow server that can be killed, and a network to it that misbehaves."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import psutil
from builders import empty_store
from requests import ConnectionError, PreparedRequest, Response
from requests.adapters import HTTPAdapter

START_SECONDS = 120  # generous: a limit only against hanging


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def with_descendants(process: subprocess.Popen) -> list[psutil.Process]:
    started = psutil.Process(process.pid)
    return [started, *started.children(recursive=True)]


def wait_until_listening(process: subprocess.Popen, port: int) -> set[str]:
    """Wait until a process or a descendant listens on the port. Return the addresses on which they listen."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        connections = [one for member in with_descendants(process) for one in member.net_connections()]
        addresses = [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
        if port in {address.port for address in addresses}:
            return {address.ip for address in addresses}
        time.sleep(0.2)
    raise AssertionError("nothing listens")


def kill_with_descendants(process: subprocess.Popen) -> None:
    for member in reversed(with_descendants(process)):
        member.kill()
    process.communicate()


class Server:
    """``mlflow server`` on its own database. It can be killed and started again.

    options: further arguments of the command. environment: further variables.
    """

    def __init__(self, folder: Path, *options: str, **environment: str):
        self.folder, self.options, self.environment = folder, options, environment
        self.database, self.artifacts = folder / "mlflow.db", folder / "artifacts"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.artifacts), *self.options]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | settings | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until_listening(self.process, self.port)

    def kill(self) -> None:
        if self.process is not None:
            kill_with_descendants(self.process)
            self.process = None

    def __enter__(self) -> "Server":
        empty_store(self.folder)
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


class Network:
    """The connection between this process and a server. It works as ``mode`` says.

    pass: send requests. error: answer 500. slow: wait ten seconds first. hang: wait until the mode changes.
    cut: send the request and lose the reply: the first time for each kind of request, and the first four times that a
    run or an experiment is created.
    """

    def __init__(self, monkeypatch):
        self.mode = "pass"
        self.changed = threading.Condition()
        self.cut: Counter[str] = Counter()  # by kind of request
        send = HTTPAdapter.send
        monkeypatch.setattr(HTTPAdapter, "send", lambda *arguments, **more: self._send(send, *arguments, **more))

    def set_mode(self, mode: str) -> None:
        with self.changed:
            self.mode = mode
            self.changed.notify_all()

    def _send(self, send: Callable, adapter: HTTPAdapter, request: PreparedRequest, **more) -> Response:
        mode = self.mode
        if mode == "error":
            answer = Response()
            answer.status_code, answer.url, answer.request, answer.raw = (
                500,
                request.url,
                request,
                io.BytesIO(b"broken"),
            )
            return answer
        if mode == "slow":
            time.sleep(10)
        if mode == "hang":
            with self.changed:
                self.changed.wait_for(lambda: self.mode != "hang")
        answer = send(adapter, request, **more)
        kind = f"{request.method} {PurePosixPath(request.url.partition('?')[0]).name}"
        if mode == "cut" and self.cut[kind] < (4 if kind == "POST create" else 1):
            self.cut[kind] += 1
            raise ConnectionError("the connection was cut")
        return answer
