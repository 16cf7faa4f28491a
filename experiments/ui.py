"""Serve the MLflow UI for what is tracked, on this machine only."""

import os
import subprocess
import sys

from cskd import cli
from cskd.errors import without_password
from experiments.tracking.store import is_server, open_store


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    uri = cli.tracking_uri()
    if is_server(uri):
        print(f"MLFLOW_TRACKING_URI is a server with a UI of its own: {without_password(uri)}")
        return 0
    open_store(uri)
    address = f"http://127.0.0.1:{arguments.port}"
    print(f"the MLflow UI is at {address} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(arguments.port)]
    # The address by the environment: it may have a password, and command lines are for all to read.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    return subprocess.call([*command, "--workers", "1"], env=environment)


if __name__ == "__main__":
    cli.run(main)
