"""A real PostgreSQL, and an S3 of moto, on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from faults.servers import free_port, kill_with_descendants, wait_until_listening

PROGRAMS = "/usr/lib/postgresql"  # of Debian's packages, below a folder for each version
USER = "cskd"
ROOT = "s3://cskd"  # a bucket
# moto takes any values
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL. Skip the test if it is not installed and cannot be."""
    versions = sorted(Path(PROGRAMS).glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name) or pytest.skip("PostgreSQL is not installed")


class PostgreSQL:
    """A server. It refuses to run as root, so root runs it as the user that Debian's package makes."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(folder, **self.user)

    def start(self) -> subprocess.Popen:
        data = self.folder / "data"
        self._call("initdb", "--auth=trust", "--no-sync", f"--username={USER}", f"--pgdata={data}")
        with (self.folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [program("postgres"), "-D", data, "-p", str(self.port), "-k", self.folder, "-c", "fsync=off"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self.user,
            )
        wait_until_listening(process, self.port)
        return process

    def create_database(self, name: str) -> str:
        """Return the address of a new, empty database."""
        self._call("createdb", "--host=127.0.0.1", f"--port={self.port}", f"--username={USER}", name)
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def _call(self, name: str, *arguments: str) -> None:
        command = [program(name), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **self.user)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run a server. Its folder is not pytest's, which only this process's user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        server = PostgreSQL(Path(folder))
        process = server.start()
        try:
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # ends its connections, and then its processes
            process.wait()


@contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 with an empty bucket; yield the environment of its clients."""
    port = free_port()
    with (folder / "log.txt").open("wb") as log, ExitStack() as stack:
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(kill_with_descendants, process)
        wait_until_listening(process, port)
        access = KEYS | {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        _bucket(access).create()
        yield access


def objects(access: dict[str, str], prefix: str) -> list[str]:
    """Return the names of the objects in the bucket that begin with ``prefix``."""
    return [item.key for item in _bucket(access).objects.filter(Prefix=prefix)]


def _bucket(access: dict[str, str]):
    import boto3  # noqa: PLC0415 - only where these tests run

    session = boto3.Session(access["AWS_ACCESS_KEY_ID"], access["AWS_SECRET_ACCESS_KEY"])
    resource = session.resource("s3", "us-east-1", endpoint_url=access["MLFLOW_S3_ENDPOINT_URL"])
    return resource.Bucket(ROOT.removeprefix("s3://"))
