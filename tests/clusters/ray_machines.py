"""A real Ray cluster on this machine: a head, and machines in network namespaces of their own that share the files."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from faults.servers import kill_with_descendants

from experiments.launch.backends.ray import read_settings

WAIT_SECONDS = 90
CORES = 2  # of each machine, as Ray counts


class RayMachines:
    """The head has no cores, so that jobs run on the machines, which are started and lost by name.

    The driver is on the head. The names of hosts differ, as leases compare them.
    """

    def __init__(self):
        self.net = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.port, self.bridge = 6399, f"ray{os.getpid()}"
        self.address = f"{self.net}.1:{self.port}"
        # Ray puts sockets there, whose paths must be short.
        self.temporary = Path(tempfile.mkdtemp(prefix="ray"))
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(self.temporary), "OMP_NUM_THREADS": ""}
        self.environment = read_settings() | settings | {"RAY_ADDRESS": self.address}
        self.stack = ExitStack()
        self.machines: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "RayMachines":
        self.stack.callback(shutil.rmtree, self.temporary, ignore_errors=True)
        with self.stack as stack:  # undone if a step fails
            if ip("link", "add", self.bridge, "type", "bridge", check=False):
                pytest.skip("no network namespaces: they need root and its rights")
            stack.callback(ip, "link", "del", self.bridge)
            ip("addr", "add", f"{self.net}.1/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
            head = self._ray(["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false"], 1)
            stack.callback(kill_with_descendants, head)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def _ray(self, options: list[str], number: int, *before: str, **environment: str) -> subprocess.Popen:
        """Start Ray's processes of the machine with this address, and wait until it is in the cluster."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        file, until = self.temporary / f"{number}.log", time.monotonic() + WAIT_SECONDS
        with file.open("wb") as log:
            process = subprocess.Popen(
                [*before, *command, f"--node-ip-address={self.net}.{number}"],
                env=os.environ | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while "Ray runtime started" not in file.read_text():
            assert process.poll() is None and time.monotonic() < until, file.read_text()[-2000:]
            time.sleep(0.5)
        return process

    def start(self, name: str, number: int, **environment: str) -> None:
        """Start a machine, unless it runs. number: from 2, of its address. environment: of its jobs."""
        if name in self.machines and self.machines[name].poll() is None:
            return
        space, link = f"{self.bridge}-{name}", f"{self.bridge}{name}"
        if name not in self.machines:
            ip("netns", "add", space)
            self.stack.callback(ip, "netns", "del", space)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", link, "master", self.bridge)
            for command in (f"addr add {self.net}.{number}/24 dev eth0", "link set eth0 up", "link set lo up"):
                ip("-n", space, *command.split())
            self.stack.callback(self.kill, name)
        ip("link", "set", link, "up")
        named = ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh")
        options = [f"--address={self.address}", f"--num-cpus={CORES}"]
        self.machines[name] = self._ray(options, number, "ip", "netns", "exec", space, *named, **environment)

    def cut(self, name: str) -> None:
        """Cut the machine off from the network. Its processes go on."""
        ip("link", "set", f"{self.bridge}{name}", "down")

    def kill(self, name: str) -> None:
        """Kill all processes of a machine."""
        with suppress(psutil.NoSuchProcess):
            kill_with_descendants(self.machines[name])


def ip(*arguments: str, check: bool = True) -> int:
    """Return the status of a command of ``ip``, 1 if it is not installed."""
    if not shutil.which("ip"):
        return 1
    return subprocess.run(["ip", *arguments], check=check, capture_output=not check).returncode
