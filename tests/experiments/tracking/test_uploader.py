"""The uploader never blocks or stops the training, and reports its problems."""

import signal
import threading
import time

import pytest
from run_folders import make_run, make_spec, plan_of

from experiments.tracking import uploader as module
from experiments.tracking.grids import GridTracker
from experiments.tracking.uploader import Uploader


def test_dead_server_costs_no_time_and_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.05)
    spec = make_run(tmp_path, make_spec(0))
    plan_of(spec).save(tmp_path)
    lines = []
    with Uploader(lambda: GridTracker("http://127.0.0.1:9", "demo", tmp_path), lines.append) as uploader:
        started = time.monotonic()
        uploader.watch(spec.run_key)
        assert time.monotonic() - started < 1
        while not lines:
            time.sleep(0.05)
    assert lines[0].endswith("Training continues; MLflow is retried every 15 s.")
    assert "127.0.0.1" in uploader.problem
    assert uploader.cpu_seconds > 0


@pytest.mark.parametrize("stopped", [False, True])
def test_ctrl_c_ends_the_final_wait(stopped, monkeypatch):
    """At once if the launch was stopped before; otherwise a working server gets a moment to finish."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 20.0)
    uploaded = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Slow:
        def update(self, everything: bool) -> None:
            threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
            if not stopped:
                threading.Timer(0.5, uploaded.set).start()
            assert uploaded.wait(60)

    try:
        with Uploader(Slow) as uploader:
            if stopped:
                uploader.launch_stopped()
    finally:
        signal.signal(signal.SIGINT, before)
        uploaded.set()
    assert uploader.problem == ("the upload was skipped with Ctrl-C" if stopped else None)
