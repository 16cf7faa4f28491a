"""Hyper-parameter search with Optuna; nothing else of the experiments imports it."""
