"""Serve optuna-dashboard for the studies, on this machine only."""

from optuna_dashboard import run_server

from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.commands.serving import HOST, check_port_free, port
from experiments.tuning.storage import is_there, open_storage, storage_address


def main() -> int:
    parser = cli.Parser(prog="python -m experiments dashboard", description=__doc__)
    parser.add_argument("--port", type=port, default=8080)
    arguments = parser.parse_args()
    address = storage_address()
    if not is_there(address):
        raise UserError(
            f"nothing has been tuned yet, {address} does not exist: make tune DATASET=digits is a first one"
        )
    storage = open_storage(address)
    check_port_free(arguments.port)
    print(f"optuna-dashboard is at http://{HOST}:{arguments.port} (Ctrl-C ends it)", flush=True)
    # In this process: an address may have a password, and command lines are for all to read.
    run_server(storage, host=HOST, port=arguments.port)
    return 0
