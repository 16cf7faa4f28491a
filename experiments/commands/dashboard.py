"""Serve optuna-dashboard for the studies, on this machine only."""

from optuna_dashboard import run_server

from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.commands.serving import HOST, check_port_free, port
from experiments.tuning.storage import open_storage, storage_address, storage_exists


def main() -> int:
    parser = cli.Parser(prog="python -m experiments dashboard", description=__doc__)
    parser.add_argument("--port", type=port, default=8080)
    arguments = parser.parse_args()
    address = storage_address()
    if not storage_exists(address):
        raise UserError(f"no study yet: {address} does not exist: start with make tune DATASET=digits")
    storage = open_storage(address)
    check_port_free(arguments.port)
    print(f"optuna-dashboard: http://{HOST}:{arguments.port} (Ctrl-C ends it)", flush=True)
    # Not in a new process: the address may contain a password, and every user can read command lines.
    run_server(storage, host=HOST, port=arguments.port)
    return 0
