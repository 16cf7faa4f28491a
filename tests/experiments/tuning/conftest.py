"""Commands of tuning with hand-made runs in place of training."""

from collections.abc import Callable

import pytest
from builders import empty_store
from studies import write_run

from experiments.commands import study as study_command
from experiments.config.datasets import prepare_data
from experiments.config.recipe import load_settings
from experiments.launch.backends import Backend
from experiments.launch.estimate import Estimator
from experiments.runs.folder import DONE
from experiments.runs.plan import PlannedRun
from experiments.tuning import figures


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Return a DATA_DIR with the prepared digits."""
    folder = tmp_path_factory.mktemp("data")
    prepare_data("digits", load_settings("digits")[1].data, folder)
    return folder


class Training:
    """The stub: ``runs`` are the trained ones. Tests may replace the attributes that are not ``runs``."""

    def __init__(self):
        self.draws_figures = False
        self.stop_after: int | None = None  # runs after which a signal stops the launch
        self.runs: list[PlannedRun] = []
        self.backend: Backend | None = None
        self.on_wait: Callable[[], None] = lambda: None  # called while no run can start
        self.error: Callable[[PlannedRun], float] = lambda run: 50.0
        self.nll: Callable[[PlannedRun], float] = lambda run: 1.0
        self.state: Callable[[PlannedRun], str] = lambda run: DONE

    def launch(self, runs, backend, callbacks) -> bool:
        self.backend = backend
        for run in runs:
            if run is not None:
                self.runs.append(run)
                callbacks.started(run)
                error, state = self.error(run), self.state(run)
                metrics = {"nll": self.nll(run), "ece": 50 - error / 2}
                write_run(run, error, None if state == DONE else 1, state, reason=f"{state}: a reason", **metrics)
                callbacks.ended(run, state)
            else:
                self.on_wait()
            if len(self.runs) == self.stop_after:
                return False
        return True


@pytest.fixture
def training(call, digits, tmp_path, monkeypatch) -> Training:
    """Replace training and time estimates in the commands that ``call`` runs."""
    stub = Training()
    empty_store(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(digits))
    monkeypatch.setattr(study_command, "launch", stub.launch)
    monkeypatch.setattr(Estimator, "seconds", lambda self, run: 60.0)
    monkeypatch.setattr(Estimator, "seconds_from_start", lambda self, run: 60.0)
    real_figures = figures.study_figures
    monkeypatch.setattr(
        figures, "study_figures", lambda *args, **options: real_figures(*args, **options) if stub.draws_figures else {}
    )
    return stub
