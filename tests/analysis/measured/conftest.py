"""The measured files of the made-up runs, written once."""

import pytest

from analysis.commands import measured


@pytest.fixture(scope="session")
def export(store_uri, tmp_path_factory):
    """Run the command: ``export(folder, *arguments)`` returns what it prints. Evaluations are cached."""
    cache = tmp_path_factory.mktemp("results")

    def run(folder, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", store_uri)
            lines = []
            patch.setattr(measured.Console, "print", lambda _, line, **options: lines.append(line))
            assert measured.main(["--measured-dir", str(folder), "--results-dir", str(cache), *arguments]) == 0
        return "\n".join(lines)

    run.cache = cache
    return run


@pytest.fixture(scope="session")
def exported(export, tmp_path_factory):
    """(folder with the files of all pools, what the command printed)."""
    folder = tmp_path_factory.mktemp("measured")
    return folder, export(folder)
