"""Evaluation of predictions: metrics, calibration, bootstrap, class separation, and the file of predictions."""
