"""What is read out of tracked runs: tables and pictures. Nothing here trains or writes to the tracking."""

import logging
import os

from cskd.utils.cli import expect_ctrl_c

# MLflow reads these when it is imported. A server that is away or hangs must be noticed in seconds, not in its
# default minutes; no telemetry, and no bar for each file that is read.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

expect_ctrl_c()
