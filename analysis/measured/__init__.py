"""Measured results as CSV files, and the document tables generated from them."""
