"""Measured results as CSV files, and the pages made from them."""
