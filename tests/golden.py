"""Text that is compared byte by byte with a file that is kept."""

import os
from pathlib import Path


def compare(text: str, golden: Path) -> None:
    """With UPDATE_GOLDEN=1 in the environment the file is made anew."""
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(text.encode())
    assert text.encode() == golden.read_bytes(), f"differs from {golden.name}: see this module's golden tests"
