"""Runs that fail: a loss that is not finite, no memory, a crash. The reason is recorded, and the other runs finish."""

import math
import re

import pytest
from builders import empty_store
from faults.backend import assert_uploaded_once, rows, tagged
from place import Place

from experiments.runs.folder import DONE, FAILED

NOT_FINITE, MEMORY, CRASH = "NaN or inf loss", "out of memory", "a worker that crashes"
SETTINGS = ("--set", "schedule.epochs=3", "--set", "schedule.milestones=[2]", "--set", "width=4")

# What happens to the run of each seed in its seventh step, which is step 3 of epoch 2.
HARM_AT_STEP_3_OF_EPOCH_2 = """
import sys
if "worker" in sys.orig_argv:
    import ctypes, json, os, resource
    import torch
    from cskd.train.step import Step

    def limit():
        now = 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**24,) * 2)
        torch.ones(2**26)

    def overwrite(value):
        with torch.no_grad():
            trained.model.head.weight[0, 0] = value

    HARM = {
        1: lambda: overwrite(float("nan")),
        2: lambda: overwrite(1e38),
        3: lambda: torch.empty(2**50),
        4: lambda: bytearray(2**60),
        5: limit,
        6: lambda: ctypes.string_at(0),
        7: os.abort,
        8: lambda: os._exit(0),
    }
    seed = json.load(open(sys.orig_argv[sys.orig_argv.index("worker") + 1] + "/spec.json"))["seed"]
    original, steps = Step.__call__, [0]

    def harmed(step, batch):
        global trained
        trained = step
        steps[0] += 1
        if steps[0] == 7 and seed in HARM:
            HARM[seed]()
        return original(step, batch)

    Step.__call__ = harmed
"""
OUT_OF_MEMORY = r"out of memory \(.*\): fewer WORKERS, or a smaller batch \(SET=batch_size=\.\.\., .*\)"
LOSS = r"the loss is not finite from epoch 2, step 3 on: loss {0}, cross_entropy {0}, top1_error \S+, lr 0\.1"
EXPECTED = {
    1: (NOT_FINITE, LOSS.format("nan")),
    2: (NOT_FINITE, LOSS.format("(inf|nan)")),
    3: (MEMORY, OUT_OF_MEMORY),
    4: (MEMORY, OUT_OF_MEMORY),
    5: (MEMORY, OUT_OF_MEMORY),
    6: (CRASH, "the process ended by SIGSEGV"),
    7: (CRASH, "the process ended by SIGABRT"),
    8: (CRASH, "the process ended with status 0"),
}
SEEDS = [0, *EXPECTED]


def grid(place: Place, *more: str) -> tuple[int, str, str]:
    arguments = ("demo", "--methods", "cross-entropy", "--seeds", *map(str, SEEDS), "--workers", "2", *more)
    return place.call("experiments grid", *arguments, *SETTINGS)


@pytest.fixture(scope="module")
def harmed(tmp_path_factory):
    """A grid of one healthy run and eight harmed ones: (place, result of the launch, result of status)."""
    place = Place(tmp_path_factory.mktemp("failures"))
    empty_store(place.folder)
    (place.folder / "sitecustomize.py").write_text(HARM_AT_STEP_3_OF_EPOCH_2)
    place.environment["PYTHONPATH"] = str(place.folder)
    launched = grid(place)
    return place, launched, place.call("experiments status")


@pytest.mark.slow_fault
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.fault(kind)) for kind in (NOT_FINITE, MEMORY, CRASH)]
)
def test_reason_of_a_failed_run_is_in_state_output_and_tracking(harmed, tally, kind):
    place, (status, output, errors), (asked, shown, _) = harmed
    assert (status, errors, asked) == (1, "", 0)
    assert "1 of 9 runs are done." in output and "RETRY=1 runs the failed ones again" in output
    folders = {folder.spec().seed: folder for folder in place.folders()}
    assert folders[0].state()["state"] == DONE
    for seed, (expected_kind, reason) in EXPECTED.items():
        if expected_kind != kind:
            continue
        folder = folders[seed]
        with tally:
            state = folder.state()
            assert (state["state"], state["epoch"]) == (FAILED, 1)
            assert re.fullmatch(f"failed: {reason}", state["reason"])
            line = f"digits/resnet10/cross-entropy/seed{seed}: {state['reason']} (log: {folder.log})"
            assert output.count(line) == 2  # when it ended, and in the summary
            assert line in shown
            ((run, run_status, _),) = tagged(place.folder / "mlflow.db", kind="run", run_key=folder.path.name)
            assert run_status == "FAILED"
            query = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'reason'"
            assert rows(place.folder / "mlflow.db", query, run) == [(state["reason"],)]
            query = "SELECT step FROM metrics WHERE run_uuid = ? AND key = 'train/loss'"
            assert rows(place.folder / "mlflow.db", query, run) == [(0,)]


@pytest.mark.fault(CRASH)
@pytest.mark.slow_fault
def test_failed_runs_are_trained_again_only_on_request(harmed, tally):
    place, *_ = harmed
    before = {folder.path: folder.state() for folder in place.folders()}
    with tally:
        assert grid(place)[0] == 1
        assert {folder.path: folder.state() for folder in place.folders()} == before
    (place.folder / "sitecustomize.py").unlink()
    with tally:
        status, output, errors = grid(place, "--retry")
        assert (status, errors) == (0, "")
        assert "9 of 9 runs are done." in output
        assert_uploaded_once(place.folder / "mlflow.db", place.folders())
        assert all(math.isfinite(folder.epochs()[-1]["metrics"]["train/loss"]) for folder in place.folders())
