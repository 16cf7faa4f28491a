"""System packages that a test needs: installed if this machine allows it, otherwise the test is skipped."""

import os
import shutil
import subprocess

import pytest

INSTALL = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::http::Timeout=30")


def require_commands(commands: str, packages: str) -> None:
    """Install Debian packages unless all their commands are there. Skip the test, with a reason, if that is impossible.

    Both are lists of words. Commands may be absolute paths.
    """
    missing = [command for command in commands.split() if not shutil.which(command)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"{', '.join(missing)}: not installed, and only root can install it, with apt-get")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages.split()]):
        done = subprocess.run([*INSTALL, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{packages}: apt-get cannot install it: {done.stderr.strip().splitlines()[-1:]}")
