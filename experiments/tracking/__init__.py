"""Upload of run folders and studies to MLflow."""
