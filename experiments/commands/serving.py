"""The port on which ``ui`` and ``dashboard`` serve."""

import argparse
import os
import socket

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
