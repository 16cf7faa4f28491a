"""Serve optuna-dashboard for the studies, on this machine only."""

import subprocess
import sys
from pathlib import Path

from cskd import cli
from cskd.errors import UserError
from experiments.tuning.study import is_there, open_storage, storage_address


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.dashboard", description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    address = storage_address()
    if not is_there(address):
        raise UserError(
            f"nothing has been tuned yet, {address} does not exist: make tune DATASET=digits is a first one"
        )
    open_storage(address)
    command = [Path(sys.executable).with_name("optuna-dashboard"), address, "--host", "127.0.0.1"]
    print(f"optuna-dashboard is at http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    return subprocess.call([*command, "--port", str(arguments.port)])


if __name__ == "__main__":
    cli.run(main)
