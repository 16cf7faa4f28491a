"""Datasets: found or downloaded, verified, decoded once, then read from memory-mapped files."""
