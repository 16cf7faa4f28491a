"""Serve optuna-dashboard for the studies, on this machine only."""

from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna_dashboard import wsgi

from cskd.utils import cli
from cskd.utils.databases import print_address
from cskd.utils.errors import UserError
from experiments.commands.serving import HOST, check_port_free, port, until_ctrl_c
from experiments.tuning.storage import open_storage, storage_address, storage_exists


class QuietHandler(WSGIRequestHandler):
    """Prints no line for each request."""

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> int:
    parser = cli.Parser(prog="python -m experiments dashboard", description=__doc__)
    parser.add_argument("--port", type=port, default=8080)
    arguments = parser.parse_args()
    address = storage_address()
    if not storage_exists(address):
        raise UserError(f"no study yet: {address} does not exist: start with make tune DATASET=digits")
    storage = open_storage(address)
    check_port_free(arguments.port)
    print_address("OPTUNA_STORAGE", address)
    # Not in a new process: the address may contain a password, and every user can read command lines.
    server = make_server(HOST, arguments.port, wsgi(storage), handler_class=QuietHandler)
    with until_ctrl_c("optuna-dashboard"), server:
        print(f"optuna-dashboard is at http://{HOST}:{arguments.port} (Ctrl-C stops it).", flush=True)
        server.serve_forever()
    return 0
