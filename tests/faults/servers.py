"""A real MLflow server that can be killed, and a proxy in front of it that misbehaves."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import psutil

START_SECONDS = 120  # generous: a limit only against hanging


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until_listening(process: subprocess.Popen, port: int) -> set[str]:
    """Wait until a process or a descendant listens on the port. Return the addresses on which they listen."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        connections = [connection for member in family for connection in member.net_connections()]
        addresses = [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
        if port in {address.port for address in addresses}:
            return {address.ip for address in addresses}
        time.sleep(0.2)
    raise AssertionError("nothing listens")


def kill_family(process: subprocess.Popen) -> None:
    """Kill a process and its descendants."""
    for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        member.kill()
    process.communicate()


class Server:
    """``mlflow server`` on its own database. It can be killed and started again."""

    def __init__(self, folder: Path, *options: str, **environment: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.options, self.environment = folder, options, environment
        self.database = folder / "mlflow.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1", *self.options]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | settings | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until_listening(self.process, self.port)
        return self

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a server as ``mode`` says.

    pass: forward. error: answer 500. slow: wait ten seconds first. hang: wait until the mode changes.
    cut: forward, then close the connection without an answer: the first time for each kind of request, and the first
    four times that a run or an experiment is created.
    """

    daemon_threads = True

    def __init__(self, server: Server, mode: str = "pass"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.mode = server, mode
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.cut: Counter[str] = Counter()  # by kind of request
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def set_mode(self, mode: str) -> None:
        with self.changed:
            self.mode = mode
            self.changed.notify_all()

    def stop(self) -> None:
        self.set_mode("pass")
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Do nothing: clients that give up are expected here."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _forward(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = proxy.mode
        if mode == "hang":
            with proxy.changed:
                proxy.changed.wait_for(lambda: proxy.mode != "hang")
        elif mode == "slow":
            time.sleep(10)
        elif mode == "error":
            self._answer(500, [], b"made to fail")
            return
        connection = http.client.HTTPConnection("127.0.0.1", proxy.behind.port, timeout=START_SECONDS)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        kind = f"{self.command} {PurePosixPath(self.path.partition('?')[0]).name}"
        if mode == "cut" and proxy.cut[kind] < (4 if kind == "POST create" else 1):
            proxy.cut[kind] += 1
            self.close_connection = True
            return
        self._answer(response.status, response.getheaders(), content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward

    def log_message(self, *arguments) -> None:
        pass
