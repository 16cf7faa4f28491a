"""Summaries, intervals and evaluations of predictions."""
