"""Shared by ``ui`` and ``dashboard``: the check of the port, and the end with Ctrl-C."""

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cskd.utils.errors import UserError

HOST = "127.0.0.1"


def port(text: str) -> int:
    """Return a command-line argument as a port number."""
    if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give one from 1 to 65535")
    return int(text)


def check_port_free(number: int) -> None:
    """Raise UserError if the port cannot be used."""
    try:
        socket.create_server((HOST, number)).close()
    except OSError as error:
        message = f"port {number} cannot be used ({os.strerror(error.errno)}): give another one, as PORT=<number>"
        raise UserError(message) from error


def is_listening(number: int) -> bool:
    """Return True if a server answers on the port."""
    with socket.socket() as connection:
        return connection.connect_ex((HOST, number)) == 0


@contextmanager
def until_ctrl_c(name: str) -> Iterator[None]:
    """Run the block until Ctrl-C or SIGTERM, and then print that the server has stopped. name: of the server."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped: {name}")
