"""Reading MLflow into data frames."""
