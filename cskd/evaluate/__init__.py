"""What is measured on predictions: metrics, calibration, bootstrap intervals."""
