"""What is told to MLflow; nothing else of the experiments imports it."""
