"""The views of an experiment, in the real UI."""

import re
import subprocess

import pytest
from browser import CHROMIUM
from faults.servers import free_port
from mlflow import MlflowClient
from run_folders import tracked

from experiments.commands import ui
from experiments.tracking.views import view_links


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_links_open_tables_with_the_metrics_of_cells_and_seeds(demo_grid, tmp_path):
    port, pages = free_port(), {}

    class Seen(Exception):
        pass

    def look() -> None:
        links = view_links(MlflowClient(demo_grid.uri), f"http://{ui.HOST}:{port}")
        [views] = links.values()
        for view, link in views.items():
            command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / view}"]
            command += ["--window-size=2500,900", "--virtual-time-budget=20000", "--dump-dom", link]
            pages[view] = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout
        raise Seen

    with pytest.raises(Seen):
        ui._serve(demo_grid.uri, port, look)
    for view, kind, name in (("cells", "cell", "test/top1_error_mean"), ("seeds", "run", "test/top1_error")):
        text = re.sub(r"<[^>]+>", " ", pages[view])
        assert name in text
        for run in tracked(demo_grid.uri, kind=kind):
            assert run.info.run_name in text
            assert str(run.data.metrics[name])[:8] in text
