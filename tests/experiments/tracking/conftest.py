import pytest
from builders import empty_store


@pytest.fixture
def uri(tmp_path) -> str:
    return empty_store(tmp_path)
