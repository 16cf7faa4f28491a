"""Helpers that every package shares: errors, files, command lines."""
