"""Ports on this machine, for the commands that serve something on one."""

import argparse
import os
import socket

from cskd.utils.errors import UserError

HOST = "127.0.0.1"


def port(text: str) -> int:
    """An argument's type: a port that can be asked for by number."""
    if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give one from 1 to 65535")
    return int(text)


def check_port_free(number: int) -> None:
    """Raises UserError for a port at which nothing more can be served."""
    try:
        socket.create_server((HOST, number)).close()
    except OSError as error:
        message = f"port {number} cannot be used ({os.strerror(error.errno)}): give another one, as PORT=<number>"
        raise UserError(message) from error
