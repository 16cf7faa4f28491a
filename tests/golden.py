"""Comparison of a text with a golden file, byte by byte."""

import os
from pathlib import Path


def compare(text: str, golden: Path) -> None:
    """Assert that the text equals the file. With UPDATE_GOLDEN=1 in the environment, write the file first."""
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(text.encode())
    assert text.encode() == golden.read_bytes(), f"differs from {golden}; check it, then update with UPDATE_GOLDEN=1"
