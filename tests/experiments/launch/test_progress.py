"""What a launch shows while it trains."""

import io
import re

from rich.console import Console
from run_folders import make_epoch, make_spec

from experiments.launch.progress import Display
from experiments.runs.folder import DONE, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun

METRICS = {"train/cross_entropy": 1.234, "train/class_wise_kl": 0.2, "test/top1_error": 43.21, "test/ece": 3.5}
METRICS |= {"time/images_per_second": 1234.0}


def running(folder, seed: int) -> PlannedRun:
    """Return a run in its third epoch."""
    spec = make_spec(seed, epochs=10)
    run = PlannedRun(spec, RunFolder.of(spec, folder), 10, 100, 100)
    run.folder.create(spec)
    run.folder.write_epochs([make_epoch(seed, epoch) | {"metrics": METRICS} for epoch in range(2)])
    run.folder.write_state(RUNNING, reason="training", epoch=2, epochs=10, fraction=0.5, metrics=METRICS)
    return run


def shown(folder, **console) -> list[str]:
    """Return the printed lines of a launch of two runs that are done one after the other."""
    text = io.StringIO()
    display = Display("grid", 2, 20.0, lambda run: 10.0, Console(file=text, color_system=None, **console))
    with display:
        for seed in range(2):
            run = running(folder, seed)
            display.started(run)
            display.progressed(run)
            display.progress.refresh()
            display.ended(run, DONE)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).replace("\r", "\n").splitlines()


def test_narrow_terminal_shows_counts_and_cuts_the_losses(tmp_path):
    lines = shown(tmp_path, force_terminal=True, width=80)
    assert max(map(len, lines)) <= 80
    (bar,) = {line for line in lines if re.match(r"\S+/seed1 .* 2/10 epochs", line)}
    assert re.search("test error 43.2 %, .*…$", bar)
    assert any("1/2 runs" in line for line in lines)
    assert any("2/2 runs took 0 s" in line for line in lines)


def test_dumb_terminal_and_log_have_lines_with_the_number_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for number, console in enumerate(({}, {"force_terminal": True})):
        lines = shown(tmp_path / str(number), **console)
        name = make_spec(1, epochs=10).name
        assert f"{name}: done, test error 43.21 %, ECE 3.50 %; 2/2 runs, took 0 s" in lines
        assert any(line.startswith(f"{name}: 2/10 epochs, test error 43.2 %") for line in lines)
