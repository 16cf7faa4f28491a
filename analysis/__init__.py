"""Tables, figures and reports from tracked runs. Nothing here trains or writes to the tracking store."""

import logging
import os

from cskd.utils.cli import expect_ctrl_c

# MLflow reads these when it is imported. Its defaults wait minutes for a server that does not answer, send telemetry
# and show a progress bar for each file.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

expect_ctrl_c()
